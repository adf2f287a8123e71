"""Everything random about an epoch's views, as a few numbers per view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.train.augment.policy import draw_policy

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import AugmentRecipe

__all__ = ["Draws", "draw", "without_mirroring"]

# Each option draws from a stream of its own, so that switching one off leaves the others' draws alone. Add new ones at the end.
STREAMS = ("crop", "flip", "flip_vertical", "turn", "shear", "zoom", "shift", "brightness", "contrast", "saturation", "hue",
           "grey", "erase", "policy")  # fmt: skip
# Of Random Erasing, as in torchvision's RandomErasing: the part of the area, and the largest height by width.
ERASED_AREA = (0.02, 0.33)
ERASED_ASPECT = 3.3


@dataclass(frozen=True)
class Draws:
    """What is random about some views.

    Attributes:
        count: how many views.
        tensors: on the CPU, `[count, …]` each; only those that the recipe needs. What takes more than plain arithmetic (sines,
            logarithms) is done already: such functions may give a value other last bits elsewhere in a vector, and a
            view must not depend on where in a batch it stands.

            - `crop` float32 `[count, 4]`: width and height as parts of the image's sides, the centre's x and y in [-1, 1];
            - `flip`, `flip_vertical` bool;
            - `turn` float32 `[count, 2]`: the rotation's cosine and sine;
            - `shear`: its tangent; `zoom`: the factor; `shift` `[count, 2]`: along x and y, in parts of the sides;
            - `brightness`, `contrast`, `saturation`: factors; `hue`: in full turns;
            - `grey` bool;
            - `erase` `[count, 4]`: left, top, right, bottom, in parts of the sides; an empty box where nothing is erased;
            - `policy_operation` uint8 `[count, operations]`: indices into `policy.OPERATIONS`; `policy_strength` and
              `policy_turn` (`[count, operations, 2]`) belong to them.
    """

    count: int
    tensors: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return self.count

    def take(self, rows: torch.Tensor) -> Draws:
        """Return the draws of some rows: int64 `[n]`, in any order."""
        return Draws(len(rows), {name: values[rows] for name, values in self.tensors.items()})


def without_mirroring(recipe: AugmentRecipe, source: str) -> AugmentRecipe:
    """Return the recipe with `flip = "auto"` decided: no flips for digits, whose mirror images are no digits."""
    if recipe.flip != "auto":
        return recipe
    return recipe.model_copy(update={"flip": source != "digits"})


def draw(count: int, recipe: AugmentRecipe, generator: torch.Generator) -> Draws:
    """Return everything random about the views of an epoch.

    Args:
        count: how many views; one per row.
        recipe: how much to vary; `flip` must be decided.
        generator: on the CPU; the same state gives the same draws, whatever it is used for afterwards.

    Raises:
        ValueError: if `flip` is still "auto": see `without_mirroring`.
    """
    import torch

    if recipe.flip == "auto":
        raise ValueError("flip must be decided before views are drawn, got 'auto': call without_mirroring first")
    seeds = torch.randint(2**62, (len(STREAMS),), generator=generator).tolist()
    streams = {name: torch.Generator().manual_seed(seed) for name, seed in zip(STREAMS, seeds, strict=True)}
    tensors = _geometry(count, recipe, streams) | _colours(count, recipe, streams)
    if recipe.erase:
        tensors["erase"] = _boxes(count, recipe.erase, streams["erase"])
    if recipe.policy != "none":
        tensors |= draw_policy(count, recipe, streams["policy"])
    return Draws(count, tensors)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    import torch

    return torch.rand(count, generator=generator) * (high - low) + low


def _factors(count: int, largest: float, generator: torch.Generator) -> torch.Tensor:
    """Return factors between `largest` and its inverse, as often above one as below."""
    return _uniform(count, -math.log(largest), math.log(largest), generator).exp()


def _geometry(count: int, recipe: AugmentRecipe, streams: dict[str, torch.Generator]) -> dict[str, torch.Tensor]:
    import torch

    tensors = {}
    if recipe.crop_min_area < 1 or recipe.aspect > 1:
        tensors["crop"] = _crops(count, recipe, streams["crop"])
    if recipe.flip:
        tensors["flip"] = torch.rand(count, generator=streams["flip"]) < 0.5
    if recipe.flip_vertical:
        tensors["flip_vertical"] = torch.rand(count, generator=streams["flip_vertical"]) < 0.5
    if recipe.rotation_degrees:
        angles = torch.deg2rad(_uniform(count, -recipe.rotation_degrees, recipe.rotation_degrees, streams["turn"]))
        tensors["turn"] = torch.stack([angles.cos(), angles.sin()], dim=1)
    if recipe.shear_degrees:
        angles = torch.deg2rad(_uniform(count, -recipe.shear_degrees, recipe.shear_degrees, streams["shear"]))
        tensors["shear"] = angles.tan()
    if recipe.zoom > 1:
        tensors["zoom"] = _factors(count, recipe.zoom, streams["zoom"])
    if recipe.shift:
        tensors["shift"] = _uniform(2 * count, -recipe.shift, recipe.shift, streams["shift"]).view(count, 2)
    return tensors


def _crops(count: int, recipe: AugmentRecipe, generator: torch.Generator) -> torch.Tensor:
    """Return `[count, 4]`: width and height in parts of the sides, and the centre in [-1, 1]."""
    import torch

    area = _uniform(count, recipe.crop_min_area, 1.0, generator)
    stretch = _factors(count, recipe.aspect, generator).sqrt()
    width = (area.sqrt() * stretch).clamp(max=1.0)
    height = (area.sqrt() / stretch).clamp(max=1.0)
    x = _uniform(count, -1.0, 1.0, generator) * (1 - width)
    y = _uniform(count, -1.0, 1.0, generator) * (1 - height)
    return torch.stack([width, height, x, y], dim=1)


def _colours(count: int, recipe: AugmentRecipe, streams: dict[str, torch.Generator]) -> dict[str, torch.Tensor]:
    import torch

    spans = {"brightness": recipe.brightness, "contrast": recipe.contrast, "saturation": recipe.saturation}
    tensors = {name: _uniform(count, 1 - span, 1 + span, streams[name]) for name, span in spans.items() if span}
    if recipe.hue_degrees:
        tensors["hue"] = _uniform(count, -recipe.hue_degrees / 360, recipe.hue_degrees / 360, streams["hue"])
    if recipe.grey:
        tensors["grey"] = torch.rand(count, generator=streams["grey"]) < recipe.grey
    return tensors


def _boxes(count: int, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Return `[count, 4]`: left, top, right and bottom of the boxes to erase, in parts of the sides (Zhong et al. 2020)."""
    import torch

    wanted = torch.rand(count, generator=generator) < probability
    area = _uniform(count, *ERASED_AREA, generator) * wanted
    stretch = _factors(count, ERASED_ASPECT, generator)
    width, height = (area / stretch).sqrt().clamp(max=1.0), (area * stretch).sqrt().clamp(max=1.0)
    left = torch.rand(count, generator=generator) * (1 - width)
    top = torch.rand(count, generator=generator) * (1 - height)
    return torch.stack([left, top, left + width, top + height], dim=1)
