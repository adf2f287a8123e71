"""What the tests of weights share: a small network, its tensors, and files of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from edgetune.recipe import ModelRecipe
from edgetune.train.network import NetworkSpec, create_network
from edgetune.train.weights import Weights, resolve

BACKBONE, REPOSITORY = "test_efficientnet", "timm/test_efficientnet.r160_in1k"
SPEC = NetworkSpec(backbone=BACKBONE)


def plain(outputs: int = 3) -> torch.nn.Module:
    return create_network(SPEC, outputs)


def tensors_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}


def from_path(path: Path, sha256: str = "") -> Weights:
    return resolve(ModelRecipe(backbone=BACKBONE, weights=str(path), weights_sha256=sha256))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
