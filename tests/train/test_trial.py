from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgetune.artefacts import Head
from edgetune.device.heads import default_heads
from edgetune.recipe import ModelRecipe
from edgetune.train.trial import bare_network, standard_error


def test_the_error_of_a_share_has_a_formula():
    heads = default_heads(["a", "b"])
    outputs, targets = np.zeros((400, 2), np.float32), np.zeros((400, 1), np.float32)
    targets[:100] = 1
    assert standard_error(heads, outputs, targets) == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 400), rel=0.02)
    # Images without a label tell nothing.
    targets[100:] = math.nan
    assert standard_error(heads, outputs, targets) < 100 * math.sqrt(0.25 / 100)


def test_a_few_images_that_are_all_right_are_not_certain():
    heads = default_heads(["a", "b"])
    few, many = (
        standard_error(heads, np.eye(2, dtype=np.float32)[[0] * count], np.zeros((count, 1), np.float32))
        for count in (10, 1000)
    )
    assert 5.0 < few < 15.0
    assert 0.0 < many < 0.2


def test_resampling_agrees_with_the_formula():
    random = np.random.default_rng(0)
    columns = ("a", "b")
    outputs = random.normal(size=(300, 4)).astype(np.float32)
    targets = random.integers(0, 2, (300, 2)).astype(np.float32)
    outputs[np.arange(300), targets[:, 0].astype(int)] += 1.0
    outputs[:, 2:], targets[:, 1] = outputs[:, :2], targets[:, 0]
    both = [Head("x", "single-label", columns), Head("y", "single-label", columns)]
    # Twice the same head: the mean of the two is the one.
    assert standard_error(both, outputs, targets) == pytest.approx(
        standard_error(both[:1], outputs[:, :2], targets[:, :1]), rel=0.25
    )


def test_a_bare_network_has_no_two_tensors_to_merge(dataset, recipe):
    model = ModelRecipe(backbone="test_efficientnet")
    checkpoint, network = bare_network(dataset, model, recipe(), functions="any", seed=0)
    assert checkpoint.weights["kind"] == "none"
    assert not network.training
    state = {name: tensor for name, tensor in network.state_dict().items() if tensor.numel() > 1}
    assert [name for name, tensor in state.items() if (tensor == tensor.flatten()[0]).all()] == []
    assert all((tensor > 0).all() for name, tensor in state.items() if name.endswith("running_var"))
    again = bare_network(dataset, model, recipe(), functions="any", seed=0)[1].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
