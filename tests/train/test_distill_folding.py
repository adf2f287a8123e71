"""Batch norms folded away: the same logits from fewer layers."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from edgetune.train.distill.folding import folded


def trained(network: nn.Module) -> nn.Module:
    """Give a network statistics that it could have learnt: a batch norm of new weights does nothing."""
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "tf_mobilenetv3_small_minimal_100"])
def test_a_folded_network_gives_the_same_logits_and_has_no_batch_norm(backbone) -> None:
    network = trained(timm.create_model(backbone, pretrained=False, num_classes=5))
    result = folded(network, torch.randn(1, 3, 64, 64))
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(result(images), network(images), rtol=1e-4, atol=1e-4)
    assert norms(network) > norms(result) == 0


class ReadTwice(nn.Module):
    """Something else reads the convolution's output, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.conv(images)
        return (self.norm(found) + found).mean(dim=(2, 3))


class RunsTwice(nn.Module):
    """One convolution, and two batch norms that take its two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.two(self.conv(self.one(self.conv(images)))).mean(dim=(2, 3))


class Standardised(nn.Conv2d):
    """Its weights are standardised each time, so that a factor on them would have no effect."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return nn.functional.conv2d(images, weight / weight.std(dim=(1, 2, 3), keepdim=True), self.bias)


@pytest.mark.parametrize(
    "network",
    [
        ReadTwice(),
        RunsTwice(),
        nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()),
    ],
    ids=["read twice", "runs twice", "standardised", "not next to it", "of the batch"],
)
def test_what_cannot_be_folded_stays(network) -> None:
    trained(network)
    images = torch.randn(2, 3, 8, 8)
    result = folded(network, images)
    with torch.inference_mode():
        torch.testing.assert_close(result(images), network(images))
    assert norms(result) == norms(network)
