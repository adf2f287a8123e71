"""Two of timm's test networks, exported once for all tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetune.artefacts import Checkpoint, Dataset, OnnxModel, Preprocessing
from edgetune.export.stage import export
from edgetune.profile import ModelCaps
from edgetune.progress import Silent
from edgetune.recipe import ExportRecipe

SIDE = 32
CLASSES = ("Ähre", "blatt", "花")
CAPS = ModelCaps(opset=18, ir_version=8)


@dataclass(frozen=True)
class Exported:
    network: Any
    checkpoint: Checkpoint
    value: OnnxModel
    model: onnx.ModelProto


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("images")
    (folder / "test").mkdir()
    generator = np.random.default_rng(5)
    np.save(folder / "test" / "images.npy", generator.integers(0, 256, (10, SIDE, SIDE, 3), np.uint8))
    (folder / "test" / "names.json").write_text(json.dumps([f"test/{index}.png" for index in range(10)]))
    return Dataset(
        source="noise",
        classes=CLASSES,
        preprocessing=Preprocessing(SIDE, SIDE),
        source_size=(SIDE, SIDE),
        counts={"test": 10},
        class_counts={"test": (4, 3, 3)},
        content_digest="0" * 64,
        golden=(),
    ).at(folder)


def checkpoint_of(name: str) -> Checkpoint:
    return Checkpoint(
        backbone=name,
        classes=CLASSES,
        preprocessing=Preprocessing(SIDE, SIDE),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        weights={},
        val_metrics={},
        best_epoch=0,
        epochs=0,
    )


@pytest.fixture(scope="session")
def run_export(dataset: Dataset) -> Callable[..., OnnxModel]:
    def run(network: Any, folder: Path, *, caps: ModelCaps = CAPS, **recipe: Any) -> OnnxModel:
        return export(
            checkpoint_of("a network"),
            dataset,
            ExportRecipe(**recipe),
            caps,
            lambda _: network,
            provenance={"edgetune": "test"},
            folder=folder,
            progress=Silent(),
        )

    return run


def _exported(name: str, run: Callable[..., OnnxModel], folder: Path, **options: Any) -> Exported:
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=len(CLASSES), **options)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    value = run(network.eval(), folder)
    return Exported(network, checkpoint_of(name), value, onnx.load(value.path))


@pytest.fixture(scope="session")
def efficientnet(run_export: Callable[..., OnnxModel], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Has batch norms, squeeze-excite and SiLU."""
    return _exported("test_efficientnet", run_export, tmp_path_factory.mktemp("efficientnet"))


@pytest.fixture(scope="session")
def vit(run_export: Callable[..., OnnxModel], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Has attention and a class token."""
    return _exported("test_vit", run_export, tmp_path_factory.mktemp("vit"), img_size=SIDE)
