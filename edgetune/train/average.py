"""Averages of weights: exponential over steps, and uniform over the ends of epochs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RunningAverage"]


class RunningAverage:
    """An exponential moving average of a network's state.

    Args:
        network: what is averaged.
        span: steps that the average reaches back over, about; 0 keeps the network's own weights.

    Attributes:
        network: a network with the averaged weights, in evaluation mode.
    """

    def __init__(self, network: nn.Module, span: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._span = span
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self, step: int) -> None:
        """Move towards the network's weights after a step (counted from 1); the span grows from 0, so that early ones fade."""
        import torch

        decay = min(1 - 1 / max(1.0, self._span), step / (step + 10)) if self._span else 0.0
        with torch.no_grad():
            torch._foreach_lerp_([kept for kept, _ in self._averaged], [now for _, now in self._averaged], 1 - decay)
            for kept, now in self._copied:
                kept.copy_(now)
