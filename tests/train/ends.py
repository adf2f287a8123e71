"""Networks with ends of all kinds, and the images that they look at."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from edgetune.recipe import ModelRecipe
from edgetune.train.described import network_spec
from edgetune.train.network import NetworkSpec
from edgetune.train.weights import Weights

SIZE = 64


def asked(backbone: str, channels: int = 3, functions: str = "any", **changes: object) -> NetworkSpec:
    model = ModelRecipe(backbone=backbone, **{"drop_rate": 0.0} | changes)
    return network_spec(model, image_size=SIZE, channels=channels, functions=functions)


def settled(network: nn.Module) -> nn.Module:
    """The network with batch norms that have seen something, so that every activation of theirs matters."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return network.eval()


def stored(network: nn.Module, folder: Path) -> Weights:
    """The network's tensors as a file of pretrained weights."""
    path = folder / "pretrained.safetensors"
    save_file({name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}, path)
    return Weights(kind="path", reference=path.name, sha256="", path=path)


def images(channels: int = 3) -> torch.Tensor:
    return torch.rand((2, channels, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
