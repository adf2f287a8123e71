"""From bytes and draws to views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.train.augment.colour import change_colours
from edgetune.train.augment.geometry import resample
from edgetune.train.augment.policy import change_by_policy

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import AugmentRecipe
    from edgetune.train.augment.draw import Draws

__all__ = ["augment", "to_float"]

# What an erased box is filled with: the middle of the range, near the mean of photographs. In black it would be an edge.
BLANK = 0.5


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 `[N, H, W, K]` as float32 `[N, K, H, W]` in [0, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255.0)


def augment(images: torch.Tensor, draws: Draws, recipe: AugmentRecipe, size: tuple[int, int]) -> torch.Tensor:
    """Return one view of each image: cut, turned and mirrored in one resampling, then changed in colour, then erased.

    With other than three channels there is no colour: saturation, hue and grey are left out, see `colour_faults`; brightness
    and contrast are those of all channels alike.

    Args:
        images: uint8 `[n, h, w, K]`, on any device.
        draws: of these n images, made with the same recipe.
        recipe: how much to vary.
        size: height and width of the views.

    Returns:
        float32 `[n, K, H, W]` in [0, 1], channels last in memory, on the images' device. On the CPU, a view has the same
        bits in whatever batch it is made.

    Raises:
        ValueError: if there are not as many draws as images.
    """
    import torch

    if len(images) != len(draws):
        raise ValueError(f"each image needs a draw: got {len(images)} images and {len(draws)} draws")
    views = resample(images.permute(0, 3, 1, 2).float(), draws.tensors, recipe, size)
    views = change_colours(views, draws.tensors)
    if "policy_operation" in draws.tensors:
        views = change_by_policy(views, draws.tensors)
    if "erase" in draws.tensors:
        views = _erase(views, draws.tensors["erase"])
    return views.contiguous(memory_format=torch.channels_last)


def _erase(views: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return the views with the boxes blanked out (Random Erasing, Zhong et al. 2020, arXiv:1708.04896)."""
    import torch

    height, width = views.shape[2:]
    left, top, right, bottom = boxes.to(views.device)[:, :, None].unbind(1)
    x = (torch.arange(width, device=views.device) + 0.5) / width
    y = (torch.arange(height, device=views.device) + 0.5) / height
    inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    return views.masked_fill_(inside[:, None], BLANK)
