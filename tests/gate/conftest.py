"""Labelled pictures on disk, and bundles of classifiers that tell their colours apart."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


def _sibling(name: str, room: str) -> ModuleType:
    """Return a module of another room's tests: test folders are no packages, and the world is built in one place."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / room / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_worlds = _sibling("gate_verify_world", "verify")
_releases = _sibling("gate_release_world", "release")
world, report, measurement = _worlds.world, _releases.report, _releases.measurement
CLASSES = _worlds.CLASSES
PICTURES = 80
"""Of each class in the test split: 320, enough to confirm a drop within one point."""
SESSION = {"providers": ["CPUExecutionProvider"], "intra_op_threads": 1, "graph_optimization": "all"}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/, val/ and test/, one folder per class in each."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for split, count in (("train", 4), ("val", 4), ("test", PICTURES)):
        for colour, name in zip(_worlds.COLOURS, CLASSES, strict=True):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + rng.normal(0, 40, (8, 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number:03}.png")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., object]:
    """Return a maker of classifiers by nearest colour, spoiled as a test wants it."""

    def make(name: str, *, blind: int | None = None, sharpness: float = 1.0, order: tuple[int, ...] = (0, 1, 2, 3)) -> object:
        """Return a model that never decides for `blind`, and whose columns stand in another order."""
        colours = _worlds.COLOURS[list(order)] / 255
        weights = (8 * sharpness * colours).astype(np.float32)
        bias = (-4 * sharpness * (colours**2).sum(axis=1)).astype(np.float32)
        if blind is not None:
            bias[blind] -= 100
        heads = _worlds.default_heads(tuple(CLASSES[i] for i in order))
        return _worlds.make_model(tmp_path / f"model-{name}", "int8", weights, bias, heads)

    return make


@pytest.fixture
def bundle(tmp_path: Path, world, report, measurement, model) -> Callable[..., Path]:
    """Return a maker of bundles; keys are those of `model`."""
    from edgetune.release.bundle import make_bundle

    def make(name: str, **spoiled: object) -> Path:
        made = make_bundle(
            folder=tmp_path / name,
            product="colours",
            model=model(name, **spoiled),
            reference=world.fp32,
            dataset=world.dataset,
            report=report,
            card="a card",
            measurement=measurement,
            profile=world.profile,
            session=SESSION,
            limits={
                "top1_drop_points": 1.0,
                "golden_max_abs": 0.5,
                **dict.fromkeys(("latency_p90_ms", "size_bytes", "peak_memory_bytes")),
            },
            provenance={"edgetune": "0.1.0"},
        )
        return made.folder

    return make
