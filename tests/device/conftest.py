"""A real model, a real bundle, the zipapp, and a Python that has nothing but numpy and onnxruntime."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetune.device.archive import write_runner
from edgetune.device.preprocess import Preprocessing, fit
from edgetune.device.session import open_session

SIDE = 8
CLASSES = ("cat", "dog", "Ähre")
PREPROCESSING = Preprocessing(height=SIDE, width=SIDE)
SESSION = {"providers": ["CPUExecutionProvider"], "intra_op_threads": 1, "graph_optimization": "all"}


def build_classifier(
    classes: int = len(CLASSES), side: int = SIDE, head: np.ndarray | None = None, **names: str
) -> onnx.ModelProto:
    """Return a small network that keeps the contract: cast, transpose, convolution, global pool, flatten, gemm.

    Args:
        classes: the number of logits.
        side: height and width of the input.
        head: the weights of the last layer, float32 `[classes, 4]`; random but always the same, unless given.
        names: other names for `image` and `logits`.
    """
    image, logits = names.get("image", "image"), names.get("logits", "logits")
    random = np.random.default_rng(0)
    weights = {
        "kernel": random.normal(0, 0.02, (4, 3, 3, 3)).astype(np.float32),
        "head": random.normal(0, 1, (classes, 4)).astype(np.float32) if head is None else head,
        "bias": random.normal(0, 1, classes).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", [image], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "kernel"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "bias"], [logits], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(image, TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_bundle(folder: Path) -> Path:
    """Write a bundle of the small network."""
    golden = folder / "golden"
    golden.mkdir(parents=True)
    onnx.save(build_classifier(), folder / "model.onnx")
    write_runner(folder / "runner.pyz")
    tensors = []
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(picture).save(golden / f"{number:02}.png")
        tensors.append(fit(picture, PREPROCESSING))
    session = open_session(folder / "model.onnx", SESSION)
    logits = np.concatenate([session.run(["logits"], {"image": tensor[None]})[0] for tensor in tensors])
    np.save(golden / "tensors.npy", np.stack(tensors))
    np.save(golden / "logits.npy", logits)
    images = [{"file": f"{number:02}.png", "label": number} for number in range(3)]
    (golden / "golden.json").write_text(json.dumps({"images": images}))
    manifest = {
        "schema": 1,
        "model": {"file": "model.onnx"},
        "classes": list(CLASSES),
        "preprocessing": PREPROCESSING.to_dict(),
        "session": SESSION,
        "profile": {"tolerance": {"logit_max_abs": 0.5}},
    }
    seal_bundle(folder, manifest)
    return folder


def seal_bundle(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with the files as they are now."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    table = {p.relative_to(folder).as_posix(): {"sha256": digest(p), "size_bytes": p.stat().st_size} for p in files}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": table}))


@pytest.fixture(scope="session")
def classifier() -> Callable[..., onnx.ModelProto]:
    """The function that makes a small network."""
    return build_classifier


@pytest.fixture(scope="session")
def seal() -> Callable[[Path, dict[str, Any]], None]:
    """The function that writes a bundle's manifest for the files as they are now."""
    return seal_bundle


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """Images as the small network takes them: uint8 `[20, 8, 8, 3]`."""
    return np.random.default_rng(7).integers(0, 256, (20, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the small network."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(build_classifier(), path)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that a test may spoil."""
    return make_bundle(tmp_path / "bundle")


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zipapp."""
    path = tmp_path_factory.mktemp("zipapp") / "runner.pyz"
    write_runner(path)
    return path


@dataclass(frozen=True)
class Device:
    """A Python as a board has it, and the zipapp.

    Attributes:
        python: the interpreter.
        runner: the zipapp.
    """

    python: Path
    runner: Path

    def run(self, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run the zipapp from a folder that knows nothing of the checkout."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        command = [str(self.python), str(self.runner), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=120, check=False)


@pytest.fixture(scope="session")
def device(device_python: Path, runner: Path) -> Device:
    """The zipapp on a Python that holds only numpy and onnxruntime."""
    return Device(device_python, runner)
