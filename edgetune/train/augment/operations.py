"""The policies' operations on colours, each on a batch whose images have their own strengths.

All take float32 `[n, K, H, W]` in [0, 1] and strengths `[n, 1, 1, 1]`, and return new images in [0, 1]. They do what those of
Pillow do, from which the papers took them, without rounding to bytes in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgetune.train.augment.colour import RGB, luma, mean_luma

if TYPE_CHECKING:
    import torch

__all__ = ["COLOUR_OPERATIONS"]


def _blend(images: torch.Tensor, dull: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Return the images as far from their dull versions as `1 + strength` says."""
    return (dull + (images - dull) * (1 + strength)).clamp_(0.0, 1.0)


def brightness(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Return the images times `1 + strength`."""
    return (images * (1 + strength)).clamp_(0.0, 1.0)


def colour(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Return the images with their saturation times `1 + strength`; images of other than 3 channels as they are."""
    return _blend(images, luma(images), strength) if images.shape[1] == RGB else images


def contrast(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Return the images with their distance from the mean luma times `1 + strength`."""
    return _blend(images, mean_luma(luma(images)), strength)


def sharpness(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Return the images with their distance from a 3 by 3 blur times `1 + strength`; pixels at the border stay."""
    if min(images.shape[2:]) < 3:
        return images
    inner = images[:, :, 1:-1, 1:-1]
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    blurred = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + inner * 4) / 13
    images = images.clone()
    images[:, :, 1:-1, 1:-1] = _blend(inner, blurred, strength)
    return images


def posterize(images: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Return the images with their bytes rounded down to multiples of `step`."""
    return ((images * 255).round_() / step).floor_() * (step / 255)


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Return the images with all values from `threshold` on inverted."""
    import torch

    return torch.where(images >= threshold, 1 - images, images)


def autocontrast(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Return the images with each channel stretched to the whole range; a channel of one value stays."""
    import torch

    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / torch.where(high > low, high - low, 1.0), images)


def equalize(images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Return the images with each channel's bytes spread as evenly as Pillow's `ImageOps.equalize` does."""
    import torch

    count, channels, height, width = images.shape
    values = (images * 255).round_().long().reshape(count * channels, height * width)
    histogram = torch.zeros(count * channels, 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, values, torch.ones_like(values))
    # All pixels but those of the brightest value that there is, spread over 255 steps.
    brightest = histogram.gather(1, values.amax(1, keepdim=True))
    step = (height * width - brightest) // 255
    before = histogram.cumsum(1) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    equal = (table.gather(1, values) / 255.0).view_as(images)
    return torch.where((step > 0).view(count, channels, 1, 1), equal, images)


COLOUR_OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "brightness": brightness, "colour": colour, "contrast": contrast, "sharpness": sharpness, "posterize": posterize,
    "solarize": solarize, "autocontrast": autocontrast, "equalize": equalize,
}  # fmt: skip
