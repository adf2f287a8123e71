"""The mean of the weights that the last epochs ended with."""

from __future__ import annotations

import torch

from edgetune.train.soup import EpochMean


def test_the_mean_of_epochs_leaves_out_the_first_ones() -> None:
    mean = EpochMean()
    for epoch in range(1, 11):
        state = {"weight": torch.full((2,), float(epoch)), "count": torch.tensor(epoch)}
        mean.add(state, epoch=epoch, epochs=10)
    assert mean.count == 4
    torch.testing.assert_close(mean.tensors["weight"], torch.full((2,), 8.5))
    assert int(mean.tensors["count"]) == 10
