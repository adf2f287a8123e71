"""Random views of a batch of images, drawn from a seed, on whatever device the batch lies on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import AugmentRecipe

__all__ = ["augment", "mix", "to_float", "without_mirroring"]

# Luma of ITU-R BT.601, which Pillow's and torchvision's grey use.
GREY = (0.299, 0.587, 0.114)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 `[N, H, W, 3]` as float32 `[N, 3, H, W]` in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255.0)


def without_mirroring(recipe: AugmentRecipe, source: str) -> AugmentRecipe:
    """Return the recipe with `flip = "auto"` decided: no flips for digits, whose mirror images are no digits."""
    if recipe.flip != "auto":
        return recipe
    return recipe.model_copy(update={"flip": source != "digits"})


def augment(images: torch.Tensor, recipe: AugmentRecipe, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Return one random view of each image: a crop, rotated and mirrored in one resampling, then changed in colour.

    Args:
        images: uint8 `[N, h, w, 3]`.
        recipe: how much to vary; `flip` must be decided.
        size: height and width of the views.
        generator: a CPU generator; the same state gives the same views on every device.

    Returns:
        float32 `[N, 3, H, W]` in [0, 1], channels last in memory.
    """
    import torch
    import torch.nn.functional as F

    batch = to_float(images)
    matrices = _matrices(len(images), recipe, generator).to(batch.device)
    grid = F.affine_grid(matrices, [len(images), 3, *size], align_corners=False)
    views = F.grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    views = _colour(views, recipe, generator)
    return views.contiguous(memory_format=torch.channels_last)


def mix(views: torch.Tensor, alpha: float, seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return each view mixed with another one of the batch (MixUp, Zhang et al. 2018).

    Args:
        views: float32 `[N, 3, H, W]`.
        alpha: of the Beta distribution that the share is drawn from; 0 mixes nothing.
        seed: draws the share and the partners.

    Returns:
        The mixed views, the partner of each, and the share of the view itself, at least one half.
    """
    import numpy as np
    import torch

    if alpha == 0:
        return views, torch.arange(len(views), device=views.device), 1.0
    generator = np.random.default_rng(seed)
    share = float(generator.beta(alpha, alpha))
    share = max(share, 1 - share)
    partners = torch.from_numpy(generator.permutation(len(views))).to(views.device)
    return share * views + (1 - share) * views[partners], partners, share


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.rand(count, generator=generator) * (high - low) + low


def _matrices(count: int, recipe: AugmentRecipe, generator: torch.Generator) -> torch.Tensor:
    """Return `[N, 2, 3]`: from a view's coordinates in [-1, 1] to the image's."""
    import torch

    area = _uniform(count, recipe.crop_min_area, 1.0, generator)
    stretch = torch.exp(_uniform(count, -math.log(recipe.aspect), math.log(recipe.aspect), generator) / 2)
    width = (area.sqrt() * stretch).clamp(max=1.0)
    height = (area.sqrt() / stretch).clamp(max=1.0)
    x = _uniform(count, -1.0, 1.0, generator) * (1 - width)
    y = _uniform(count, -1.0, 1.0, generator) * (1 - height)
    angle = torch.deg2rad(_uniform(count, -recipe.rotation_degrees, recipe.rotation_degrees, generator))
    mirror = torch.ones(count)
    if recipe.flip:
        mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    first = torch.stack([width * cos * mirror, -width * sin, x], dim=1)
    second = torch.stack([height * sin * mirror, height * cos, y], dim=1)
    return torch.stack([first, second], dim=1)


def _colour(views: torch.Tensor, recipe: AugmentRecipe, generator: torch.Generator) -> torch.Tensor:
    """Return the views with brightness, contrast and saturation scaled, each by its own factor."""

    def factor(span: float) -> torch.Tensor:
        return _uniform(len(views), 1 - span, 1 + span, generator).view(-1, 1, 1, 1).to(views.device)

    brightness, contrast, saturation = factor(recipe.brightness), factor(recipe.contrast), factor(recipe.saturation)
    if recipe.brightness:
        views = views * brightness
    grey = views[:, :1] * GREY[0] + views[:, 1:2] * GREY[1] + views[:, 2:] * GREY[2]
    if recipe.saturation:
        views = grey + (views - grey) * saturation
    if recipe.contrast:
        mean = grey.mean(dim=(1, 2, 3), keepdim=True)
        views = mean + (views - mean) * contrast
    return views.clamp_(0.0, 1.0)
