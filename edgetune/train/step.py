"""One training step: images, random views, mixing, the loss of labels and teacher, gradients.

All randomness of a step comes from (seed, epoch, step, row), so that a run resumed from any step goes on exactly as it would
have, and several processes see what one would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.train.augment import augment, mix
from edgetune.train.objective import Mixture

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import AugmentRecipe
    from edgetune.train.augment import Draws

__all__ = ["ORDER", "VIEWS", "Batch", "generator", "make_batch", "mixes", "step_seed"]

# What the first two generators of an epoch are for; those of its steps follow.
ORDER, VIEWS, FIRST_STEP = 0, 1, 2


def generator(seed: int, epoch: int, purpose: int) -> torch.Generator:
    """Return a generator for one purpose of one epoch: `ORDER`, `VIEWS`, or a step from `FIRST_STEP` on."""
    import torch

    return torch.Generator().manual_seed(((seed * 1_000_003 + epoch) * 1_000_003 + purpose) % 2**63)


def step_seed(seed: int, epoch: int, step: int) -> int:
    """Return what dropout and mixing of a step are drawn from."""
    import torch

    return int(torch.randint(2**62, (1,), generator=generator(seed, epoch, FIRST_STEP + step)))


def mixes(recipe: AugmentRecipe) -> bool:
    """Return whether images of a batch are mixed with each other."""
    return recipe.mixup > 0 or recipe.cutmix > 0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one process computes of one step.

    Attributes:
        rows: of the images, int64 `[n]`, sorted.
        views: float32 `[n, K, H, W]` in [0, 1].
        targets: `[n, T]`, standardised.
        mixture: what else the views show, if they are mixed.
        known: per head, what the losses are divided by.
    """

    rows: torch.Tensor
    views: torch.Tensor
    targets: torch.Tensor
    mixture: Mixture | None
    known: torch.Tensor

    def parts(self, count: int) -> list[Batch]:
        """Return the batch in parts, for little memory."""
        if count == 1:
            return [self]
        import torch

        result = []
        for chosen in torch.arange(len(self.rows)).tensor_split(count):
            if len(chosen):
                first, last = int(chosen[0]), int(chosen[-1]) + 1
                result.append(self._cut(slice(first, last)))
        return result

    def _cut(self, part: slice) -> Batch:
        mixture = self.mixture and Mixture(self.mixture.targets[part], self.mixture.share[part])
        return Batch(
            rows=self.rows[part], views=self.views[part], targets=self.targets[part], mixture=mixture, known=self.known
        )


def make_batch(
    images: torch.Tensor,
    rows: torch.Tensor,
    targets: torch.Tensor,
    draws: Draws,
    recipe: AugmentRecipe,
    *,
    size: tuple[int, int],
    seed: int,
    known: torch.Tensor,
    own: slice,
) -> Batch:
    """Return this process's part of a step.

    Args:
        images: uint8 `[n, h, w, K]`, of `rows`.
        rows: where images are mixed, those of the whole step; else this process's own.
        targets: `[n, T]`, standardised, of `rows`.
        draws: of `rows`.
        recipe: how views vary; its `flip` is decided.
        size: of the views.
        seed: of the mixing.
        known: per head, what the losses are divided by.
        own: which of the mixed images are this process's own.
    """
    views = augment(images, draws, recipe, size)
    targets = targets.to(images.device)
    known = known.to(images.device)
    if not mixes(recipe):
        return Batch(rows=rows, views=views, targets=targets, mixture=None, known=known)
    mixed = mix(views, recipe, seed)
    mixture = Mixture(targets[mixed.partners][own], mixed.share.to(views.device)[own])
    return Batch(rows=rows[own], views=mixed.views[own], targets=targets[own], mixture=mixture, known=known)
