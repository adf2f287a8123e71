"""RandAugment and TrivialAugment: random operations from one set, whose geometry joins the views' one resampling.

The set and its strengths are those of torchvision.transforms.v2, which follow the papers: RandAugment (Cubuk et al. 2020,
arXiv:1909.13719) and TrivialAugment in its wide space (Müller and Hutter 2021, arXiv:2103.10158). Two things differ, so that a
view is resampled only once: the geometric operations of an image all come before its other ones, and what they bring into view
repeats the border instead of being black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.train.augment.operations import COLOUR_OPERATIONS

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import AugmentRecipe

__all__ = ["OPERATIONS", "change_by_policy", "draw_policy", "policy_matrices"]

GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
OPERATIONS = ("identity", *GEOMETRY, *COLOUR_OPERATIONS)
STRONGEST_LEVEL = 30
# The strengths at level 30. Shears are tangents, rotations degrees; RandAugment translates by parts of the side,
# TrivialAugment by pixels. Of the colours it is how far the factor is from one; `posterize` is the number of bits lost.
RANDAUGMENT = dict.fromkeys(COLOUR_OPERATIONS, 0.9) | {
    "shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331, "rotate": 30.0, "posterize": 4.0,
}  # fmt: skip
TRIVIALAUGMENT = dict.fromkeys(COLOUR_OPERATIONS, 0.99) | {
    "shear_x": 0.99, "shear_y": 0.99, "translate_x": 32.0, "translate_y": 32.0, "rotate": 135.0, "posterize": 6.0,
}  # fmt: skip


def strengths(name: str, levels: torch.Tensor, strongest: float) -> torch.Tensor:
    """Return an operation's strength at each level of 0 to 30, before its sign, in the unit that the operation wants."""
    if name == "posterize":  # The width of a step, of 256.
        return (strongest * levels / STRONGEST_LEVEL).round().exp2()
    if name == "solarize":  # The threshold; a hair less, so that a byte that lies right on it is inverted in spite of rounding.
        return 1 - levels / STRONGEST_LEVEL - 1e-6
    return strongest * levels / STRONGEST_LEVEL


def draw_policy(count: int, recipe: AugmentRecipe, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return `policy_operation`, `policy_strength` and `policy_turn` of `Draws`."""
    import torch

    trivial = recipe.policy == "trivialaugment"
    shape = (count, 1 if trivial else recipe.policy_operations)
    operations = torch.randint(len(OPERATIONS), shape, generator=generator, dtype=torch.uint8)
    sign = torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)
    levels = torch.full(shape, recipe.policy_magnitude)
    if trivial:
        levels = torch.randint(STRONGEST_LEVEL + 1, shape, generator=generator).float()
    strength = torch.zeros(shape)
    for index, name in enumerate(OPERATIONS[1:], start=1):
        value = strengths(name, levels, (TRIVIALAUGMENT if trivial else RANDAUGMENT)[name])
        signed = value if name in ("posterize", "solarize") else value * sign
        strength = torch.where(operations == index, signed, strength)
    angle = torch.deg2rad(torch.where(operations == OPERATIONS.index("rotate"), strength, 0.0))
    turn = torch.stack([angle.cos(), angle.sin()], dim=-1)
    return {"policy_operation": operations, "policy_strength": strength, "policy_turn": turn}


def policy_matrices(tensors: dict[str, torch.Tensor], policy: str, size: tuple[int, int]) -> list[torch.Tensor]:
    """Return the maps `[n, 2, 3]` from a point after each operation to the one before it, that of the last operation first.

    Coordinates are in halves of the view's width along both axes, from its centre. Other operations have the identity.
    """
    import torch

    height, width = size
    ratio = height / width
    # From the strength of a translation to halves of the width.
    unit_x, unit_y = (2 / width, 2 / width) if policy == "trivialaugment" else (2.0, 2 * ratio)
    matrices = []
    for slot in reversed(range(tensors["policy_operation"].shape[1])):
        operation, strength = tensors["policy_operation"][:, slot], tensors["policy_strength"][:, slot]
        shear_x, shear_y, x, y = (torch.where(operation == OPERATIONS.index(name), strength, 0.0) for name in GEOMETRY[:4])
        cos, sin = tensors["policy_turn"][:, slot].unbind(-1)
        # Shears keep the top left corner where it is, as the papers' own code does.
        rows = [cos, shear_x - sin, shear_x * ratio - x * unit_x, shear_y + sin, cos, shear_y - y * unit_y]
        matrices.append(torch.stack(rows, dim=1).view(-1, 2, 3))
    return matrices


def change_by_policy(views: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the views after their operations on colours, one after the other; each only touches the views that drew it.

    Args:
        views: float32 `[n, K, H, W]` in [0, 1]; changed in place.
        tensors: of `Draws`.
    """
    for slot in range(tensors["policy_operation"].shape[1]):
        operations, strength = tensors["policy_operation"][:, slot], tensors["policy_strength"][:, slot]
        for name, change in COLOUR_OPERATIONS.items():
            # On the CPU, where the draws are: a device would have to be waited for to know how many rows there are.
            rows = (operations == OPERATIONS.index(name)).nonzero().squeeze(1)
            if len(rows):
                at = rows.to(views.device)
                views[at] = change(views[at], strength[rows].view(-1, 1, 1, 1).to(views.device))
    return views
