"""The mean of the weights that several epochs ended with: a uniform soup (Wortsman et al. 2022), of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["EpochMean"]

# Earlier epochs are far from where the run ends; averaging them in costs accuracy.
SKIPPED_FRACTION = 0.6


class EpochMean:
    """A running mean of a network's state over the ends of epochs.

    Attributes:
        tensors: the mean, by name; tensors of whole numbers are those of the last epoch.
        count: the number of epochs in it.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, state: Mapping[str, torch.Tensor], *, epoch: int, epochs: int) -> None:
        """Take in the state at the end of an epoch (counted from 1), unless it is one of the first."""
        if epoch <= SKIPPED_FRACTION * epochs:
            return
        self.count += 1
        for name, tensor in state.items():
            if self.count == 1 or not tensor.is_floating_point():
                self.tensors[name] = tensor.detach().clone()
            else:
                self.tensors[name].lerp_(tensor.detach(), 1 / self.count)
