"""Where each pixel of a view comes from: all that moves pixels, as one affine map per view and one resampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.train.augment.policy import policy_matrices

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import AugmentRecipe

__all__ = ["resample"]

MOVES = ("turn", "shear", "zoom", "shift")
CUTS = ("crop", "flip", "flip_vertical")


def resample(
    images: torch.Tensor, tensors: dict[str, torch.Tensor], recipe: AugmentRecipe, size: tuple[int, int]
) -> torch.Tensor:
    """Return the views before their colours change, bilinearly resampled once; what lies outside repeats the border.

    Args:
        images: float32 `[n, K, h, w]`.
        tensors: of `Draws`.
        recipe: says in which unit the policy's draws are.
        size: height and width of the views.
    """
    import torch.nn.functional as F

    maps = _maps(tensors, recipe, size)
    if not maps and images.shape[2:] == size:
        return images
    grid = _grid(_compose(maps, len(images), size).to(images.device), size)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _maps(tensors: dict[str, torch.Tensor], recipe: AugmentRecipe, size: tuple[int, int]) -> list[torch.Tensor]:
    """Return the maps `[n, 2, 3]` that take a point of the view to the image's, the first to apply first.

    They run against the order in which the image was changed: crop, flips, then zoom, shear, rotation, shift, then the policy.
    Coordinates are those of `_compose`.
    """
    maps = policy_matrices(tensors, recipe.policy, size) if "policy_operation" in tensors else []
    if any(name in tensors for name in MOVES):
        maps.append(_move(tensors, size))
    if any(name in tensors for name in CUTS):
        maps.append(_cut(tensors, size))
    return maps


def _move(tensors: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Return the inverse of zoom, shear along x, rotation and shift, in this order: as in torchvision's `affine`."""
    import torch

    count = len(next(tensors[name] for name in MOVES if name in tensors))
    one, zero = torch.ones(count), torch.zeros(count)
    cos, sin = tensors["turn"].unbind(1) if "turn" in tensors else (one, zero)
    shear = tensors.get("shear", zero)
    matrix = torch.stack([cos - shear * sin, sin + shear * cos, zero, -sin, cos, zero], dim=1).view(-1, 2, 3)
    if "zoom" in tensors:
        matrix = matrix / tensors["zoom"].view(-1, 1, 1)
    if "shift" in tensors:
        x, y = (2 * tensors["shift"]).unbind(1)
        y = y * (size[0] / size[1])
        matrix[:, :, 2] = -(matrix[:, :, 0] * x[:, None] + matrix[:, :, 1] * y[:, None])
    return matrix


def _cut(tensors: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Return the map from the mirrored crop to the image."""
    import torch

    count = len(next(tensors[name] for name in CUTS if name in tensors))
    one, zero = torch.ones(count), torch.zeros(count)
    width, height, x, y = tensors["crop"].unbind(1) if "crop" in tensors else (one, one, zero, zero)
    if "flip" in tensors:
        width = torch.where(tensors["flip"], -width, width)
    if "flip_vertical" in tensors:
        height = torch.where(tensors["flip_vertical"], -height, height)
    return torch.stack([width, zero, x, zero, height, y * (size[0] / size[1])], dim=1).view(-1, 2, 3)


def _compose(maps: list[torch.Tensor], count: int, size: tuple[int, int]) -> torch.Tensor:
    """Return all maps in one, `[n, 2, 3]`, from [-1, 1] of the view's sides to [-1, 1] of the image's.

    The maps themselves are in halves of the view's width along both axes, so that a circle stays a circle under rotation
    though the view may not be square. Products are written out: matrix libraries add up in another order for another batch.
    """
    import torch

    if not maps:
        return torch.eye(2, 3).expand(count, 2, 3)
    whole = maps[0]
    for then in maps[1:]:
        product = then[:, :, :1] * whole[:, :1] + then[:, :, 1:2] * whole[:, 1:]
        product[:, :, 2] += then[:, :, 2]
        whole = product
    ratio = size[0] / size[1]
    return whole * torch.tensor([[1.0, ratio, 1.0], [1 / ratio, 1.0, 1 / ratio]])


def _grid(matrices: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return where each pixel's centre comes from: `[n, H, W, 2]`, x and y.

    What `torch.nn.functional.affine_grid` returns, in two additions instead of a matrix product of the whole grid.
    """
    import torch

    height, width = size
    x = (torch.arange(width, device=matrices.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=matrices.device) * 2 + 1) / height - 1
    along = matrices[:, :, :1] * x
    down = matrices[:, :, 1:2] * y + matrices[:, :, 2:]
    grid = matrices.new_empty(len(matrices), height, width, 2)
    for axis in range(2):
        torch.add(along[:, axis, None, :], down[:, axis, :, None], out=grid[..., axis])
    return grid
