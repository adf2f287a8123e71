"""MixUp and CutMix: views blended with other views of the batch, and their labels with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from edgetune.recipe import AugmentRecipe

__all__ = ["Mixed", "mix"]


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Views, with whom each was mixed and how much.

    Attributes:
        views: float32 `[n, K, H, W]`.
        partners: int64 `[n]`: the row that each view was mixed with; its own where nothing was mixed.
        share: float32 `[n]`: the part of the view that is its own. The loss is `share` times that of its own label plus
            `1 - share` times that of its partner's.
    """

    views: torch.Tensor
    partners: torch.Tensor
    share: torch.Tensor


def mix(views: torch.Tensor, recipe: AugmentRecipe, seed: int) -> Mixed:
    """Return each view mixed with another one of the batch, by MixUp or CutMix, or neither.

    Args:
        views: float32 `[n, K, H, W]`.
        recipe: `mixup` and `cutmix` are the alphas of the Beta distributions that the shares are drawn from; with both, each
            batch draws which of them it gets. `mix_probability` is the part of the batches that are mixed at all.
        seed: draws the partners and the shares.
    """
    import numpy as np
    import torch

    # Drawn before anything else, and always: what one option is set to leaves the rest as it is.
    generator = np.random.default_rng(seed)
    chance, turn = generator.random(2)
    if chance >= recipe.mix_probability or not (recipe.mixup or recipe.cutmix):
        return Mixed(views=views, partners=torch.arange(len(views), device=views.device), share=views.new_ones(len(views)))
    partners = torch.from_numpy(generator.permutation(len(views))).to(views.device)
    cut = bool(recipe.cutmix) and (not recipe.mixup or turn < 0.5)
    if cut:
        return _cutmix(views, partners, recipe.cutmix, generator)
    return _mixup(views, partners, recipe.mixup, generator)


def _mixup(views: torch.Tensor, partners: torch.Tensor, alpha: float, generator: np.random.Generator) -> Mixed:
    """Return weighted means of the views and their partners (Zhang et al. 2018, arXiv:1710.09412).

    One share for the whole batch, as in the authors' code, and at least one half, so that a view is mostly its own.
    """
    share = float(generator.beta(alpha, alpha))
    share = max(share, 1 - share)
    mixed = views[partners].lerp_(views, share)
    return Mixed(views=mixed, partners=partners, share=views.new_full((len(views),), share))


def _cutmix(views: torch.Tensor, partners: torch.Tensor, alpha: float, generator: np.random.Generator) -> Mixed:
    """Return the views with a box of each replaced by its partner's (Yun et al. 2019, arXiv:1905.04899).

    The box's centre lies anywhere and its sides are cut off at the border, so the share is that of the pixels kept, not the
    one drawn. Unlike in the paper each image has a box of its own: it costs nothing, and the batch varies more.
    """
    import numpy as np
    import torch

    height, width = views.shape[2:]
    side = np.sqrt(1 - generator.beta(alpha, alpha, len(views)))
    x, y = generator.random((2, len(views)))
    left, right = _span(x, side, width)
    top, bottom = _span(y, side, height)
    share = 1 - (right - left) * (bottom - top) / (width * height)
    box = torch.from_numpy(np.stack([left, right, top, bottom])).to(views.device)[:, :, None]
    columns, rows = torch.arange(width, device=views.device), torch.arange(height, device=views.device)
    inside = ((rows >= box[2]) & (rows < box[3]))[:, :, None] & ((columns >= box[0]) & (columns < box[1]))[:, None, :]
    mixed = torch.where(inside[:, None], views[partners], views)
    return Mixed(views=mixed, partners=partners, share=torch.from_numpy(share).to(views))


def _span(centre: np.ndarray, side: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixel of each span and the one after its last: int64 `[n]`, within `length`."""
    import numpy as np

    first = np.clip(np.rint((centre - side / 2) * length), 0, length)
    last = np.clip(np.rint((centre + side / 2) * length), 0, length)
    return first.astype(np.int64), last.astype(np.int64)
