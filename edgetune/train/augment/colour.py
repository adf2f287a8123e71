"""Brightness, contrast, saturation, hue and grey, each image by its own factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import AugmentRecipe

__all__ = ["change_colours", "colour_faults", "luma", "mean_luma"]

# Luma of ITU-R BT.601, which Pillow's and torchvision's grey use.
LUMA = (0.299, 0.587, 0.114)
RGB = 3


def colour_faults(recipe: AugmentRecipe, channels: int) -> list[str]:
    """Return what the recipe asks for by name and images of so many channels don't have: one line for each key."""
    if channels == RGB:
        return []
    asked = [key for key in ("saturation", "hue_degrees", "grey") if key in recipe.model_fields_set and getattr(recipe, key)]
    return [
        f"augment.{key} is {getattr(recipe, key)}, but images of {channels} channel{'s' * (channels != 1)} have no colour "
        f"to change: expected 3 channels (RGB); leave the key out or set it to 0"
        for key in asked
    ]


def luma(images: torch.Tensor) -> torch.Tensor:
    """Return how bright each pixel is: `[n, 1, H, W]` of `[n, K, H, W]`; the channels' mean unless they are RGB."""
    count = images.shape[1]
    if count == 1:
        return images
    weights = LUMA if count == RGB else (1 / count,) * count
    total = images[:, :1] * weights[0]
    for channel in range(1, count):
        total += images[:, channel : channel + 1] * weights[channel]
    return total


def mean_luma(grey: torch.Tensor) -> torch.Tensor:
    """Return `[n, 1, 1, 1]`: the mean of each image of `[n, 1, H, W]`.

    By rows first: PyTorch adds up a single image in another order than each of many where it has several threads.
    """
    return grey.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)


def change_colours(views: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the views with their colours changed, in [0, 1].

    Hue first, then brightness, saturation (or none of it: grey) and contrast. The last three are linear in the pixel v, its
    luma l and the luma's mean m: with factors b, s and c, they are `bcs·v + bc(1-s)·l + b(1-c)·m`, which is one pass over the
    image and one over its luma; what leaves [0, 1] is cut off once, at the end.

    Args:
        views: float32 `[n, K, H, W]` in [0, 255]; may be changed in place.
        tensors: of `Draws`.
    """
    import torch

    scale = 1 / 255
    names = {"brightness", "contrast"} | ({"saturation", "hue", "grey"} if views.shape[1] == RGB else set())
    factors = {name: tensors[name].view(-1, 1, 1, 1).to(views.device) for name in sorted(names) if name in tensors}
    if "hue" in factors:
        views, scale = turn_hue(views * scale, factors.pop("hue")), 1.0
    if not factors:
        return views.mul_(scale).clamp_(0.0, 1.0)
    one = torch.ones(1, 1, 1, 1, device=views.device)
    brightness = factors.get("brightness", one) * scale
    contrast, saturation = factors.get("contrast", one), factors.get("saturation", one)
    if "grey" in factors:
        saturation = torch.where(factors["grey"], 0.0, saturation)
    rest = None
    if factors.keys() - {"brightness"}:
        grey = luma(views)
        rest = mean_luma(grey) * (brightness * (1 - contrast))
        if factors.keys() & {"saturation", "grey"}:
            rest = grey.mul_(brightness * contrast * (1 - saturation)).add_(rest)
    views = views.mul_(brightness * contrast * saturation)
    if rest is not None:
        views += rest
    return views.clamp_(0.0, 1.0)


def turn_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Return the images with their hues turned, saturation and value of HSV kept.

    Args:
        images: float32 `[n, 3, H, W]` in [0, 1].
        turns: `[n, 1, 1, 1]`, in full turns.
    """
    import torch

    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    low, value = torch.aminmax(images, dim=1, keepdim=True)
    chroma = value - low
    divisor = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue = hue + 6 * turns
    # HSV to RGB in closed form: each channel is the value, less chroma times how far the hue is from the channel's own.
    away = hue + torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    away = away - 6 * (away / 6).floor()
    return value - chroma * torch.minimum(away, 4 - away).clamp_(0.0, 1.0)
