"""How long and how fast to learn: the number of epochs, the learning rate of each step and of each layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgetune.train.network import head_of, layer_groups

if TYPE_CHECKING:
    from torch import nn

    from edgetune.recipe import TrainRecipe

__all__ = ["auto_epochs", "lr_factor", "parameter_groups"]


def auto_epochs(images: int) -> int:
    """Return the number of epochs for a train set: the steps grow with the square root of its size.

    5 for 5,300 images, 10 for 1,250, 30 for 140 and fewer, 3 for 14,000 and more.
    """
    return max(3, min(30, round(math.sqrt(130_000 / images))))


def lr_factor(step: int, total: int, warmup_fraction: float) -> float:
    """Return the factor of the peak learning rate at a step: a linear rise, then half a cosine to 1 %.

    Args:
        step: counted from 0 over the whole run.
        total: steps of the whole run.
        warmup_fraction: the part of the steps that the rate rises.
    """
    warmup = warmup_fraction * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def parameter_groups(network: nn.Module, recipe: TrainRecipe) -> list[dict[str, Any]]:
    """Return AdamW's groups: the rate falls by `layer_decay` per stage below the head; norms and biases do not decay."""
    groups = layer_groups(network)
    head = {id(parameter) for parameter in head_of(network).parameters()}
    result = []
    for depth, members in enumerate(reversed(groups)):
        lr = recipe.lr * recipe.layer_decay**depth
        for decays in (True, False):
            chosen = [p for name, p in members if (p.ndim > 1 and not name.endswith(".bias")) == decays and id(p) not in head]
            if chosen:
                decay = recipe.weight_decay if decays else 0.0
                result.append({"params": chosen, "lr": lr, "peak_lr": lr, "weight_decay": decay})
    last = head_of(network)
    result.append({"params": [last.weight], "lr": recipe.lr, "peak_lr": recipe.lr, "weight_decay": recipe.weight_decay})
    result.append({"params": [last.bias], "lr": recipe.lr, "peak_lr": recipe.lr, "weight_decay": 0.0})
    return result
