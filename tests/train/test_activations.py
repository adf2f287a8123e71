"""Smooth activations, exchanged for those that integer kernels are made for, or refused where that cannot be done."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgetune.errors import WeightsError
from edgetune.train.activations import is_smooth, left_over, swap
from edgetune.train.network import create_network
from edgetune.train.weights import load_into

from .ends import asked, images, stored


@pytest.mark.parametrize(
    ("backbone", "count"),
    [("mobilenetv3_small_050", 19), ("test_efficientnet", 11), ("test_vit", 6), ("tf_efficientnet_lite0", 0)],
)
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_smooth_activations_are_exchanged_and_counted(backbone, count, activation, tmp_path):
    spec = asked(backbone, activation=activation)
    assert spec.swapped == count
    network = create_network(spec, 3).eval()
    assert not any(is_smooth(module) for module in network.modules())
    assert left_over(network, images()) == []
    donor = create_network(replace(spec, activation="keep"), 3)
    assert sum(is_smooth(module) for module in donor.modules()) == count
    load_into(network, stored(donor, tmp_path), spec)
    kinds = {"relu": nn.ReLU, "relu6": nn.ReLU6}
    new = sum(type(module) is kinds[activation] for module in network.modules())
    assert new - sum(type(module) is kinds[activation] for module in donor.modules()) == count


def test_gates_stay():
    network = create_network(asked("mobilenetv3_small_050", activation="relu"), 3)
    assert {type(module.gate) for module in network.modules() if hasattr(module, "gate")} == {nn.Hardsigmoid}


@pytest.mark.parametrize(("functions", "expected"), [("relu", "relu"), ("any", "keep")])
def test_auto_does_what_the_profile_wants(functions, expected):
    spec = asked("test_efficientnet", functions=functions)
    assert spec.activation == expected
    assert (spec.swapped > 0) == (expected == "relu")
    assert asked("test_efficientnet", functions=functions, activation="keep").activation == "keep"


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.act = nn.SiLU(inplace=True)
        self.again = self.act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.again(self.act(self.conv(x))))


def test_what_is_no_module_is_found_and_one_instance_in_two_places_is_exchanged_twice():
    network = Functional().eval()
    assert left_over(network, images()) == ["gelu", "silu"]
    assert swap(network, "relu") == 2
    assert isinstance(network.again, nn.ReLU)
    assert network.again.inplace
    assert left_over(network, images()) == ["gelu"]


def test_a_backbone_with_functions_that_cannot_be_exchanged_is_refused(monkeypatch):
    import timm.models.efficientnet as family

    real = family.EfficientNet.forward_features
    monkeypatch.setattr(family.EfficientNet, "forward_features", lambda self, x: F.mish(real(self, x)))
    message = r"model\.activation: test_efficientnet computes mish outside of its modules.*got relu; expected keep"
    with pytest.raises(WeightsError, match=message):
        asked("test_efficientnet", activation="relu")
    assert asked("test_efficientnet", activation="keep").activation == "keep"
