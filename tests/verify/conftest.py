"""A whole small world, for real: a dataset of plain colours on disk, and two ONNX classifiers that tell them apart."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edgetune.artefacts import Dataset, NumericParity, OnnxModel, Preprocessing
from edgetune.device.heads import Head, column_names, default_heads
from edgetune.files import sha256_file
from edgetune.profile import Profile

CLASSES = ("blue", "green", "grey", "red")
COLOURS = np.array([[30, 30, 220], [30, 220, 30], [90, 90, 90], [220, 30, 30]])
SIDE = 8
IMAGES = 40
TASKS = (
    Head("colour", "single-label", CLASSES),
    Head("tags", "multi-label", ("cold", "warm"), (0.5, 0.5)),
    Head("level", "regression", ("level",)),
)


@dataclass(frozen=True)
class World:
    """A dataset, the fp32 model, the same with coarser weights, and a profile that any machine of this architecture fits."""

    dataset: Dataset
    fp32: OnnxModel
    int8: OnnxModel
    profile: Profile

    @property
    def models(self) -> dict[str, OnnxModel]:
        return {"fp32": self.fp32, "int8": self.int8}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    # Nearest colour as a linear classifier: w = 2c, b = -|c|²; in units of full scale.
    colours = COLOURS / 255
    weights = (8 * colours).astype(np.float32)
    bias = (-4 * (colours**2).sum(axis=1)).astype(np.float32)
    coarse = np.round(weights * 8) / 8
    return World(
        dataset=make_dataset(folder / "data"),
        fp32=make_model(folder / "fp32", "fp32", weights, bias),
        int8=make_model(folder / "int8", "int8", coarse.astype(np.float32), bias),
        profile=make_profile(),
    )


def make_dataset(folder: Path) -> Dataset:
    from PIL import Image

    rng = np.random.default_rng(0)
    counts = {}
    for split in ("train", "val", "test"):
        labels = np.repeat(np.arange(len(CLASSES)), IMAGES // len(CLASSES))
        noise = rng.normal(0, 25, (IMAGES, SIDE, SIDE, 3))
        images = np.clip(COLOURS[labels][:, None, None, :] + noise, 0, 255).astype(np.uint8)
        (folder / split).mkdir(parents=True)
        np.save(folder / split / "images.npy", images)
        np.save(folder / split / "labels.npy", labels)
        (folder / split / "names.json").write_text(json.dumps([f"{CLASSES[y]}/{i}.png" for i, y in enumerate(labels)]))
        counts[split] = IMAGES
    (folder / "golden").mkdir()
    golden = tuple((f"{position:02}.png", index) for position, index in enumerate((0, 15, 39)))
    for name, index in golden:
        Image.fromarray(images[index]).save(folder / "golden" / name)
    value = Dataset(
        source="colours",
        classes=CLASSES,
        preprocessing=Preprocessing(height=SIDE, width=SIDE),
        source_size=(SIDE, SIDE),
        counts=counts,
        class_counts=dict.fromkeys(counts, (IMAGES // len(CLASSES),) * len(CLASSES)),
        content_digest="0" * 64,
        golden=golden,
    )
    return value.at(folder)


@pytest.fixture(scope="session")
def task_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same images and three tasks: the colour, what can be said of it, and a value that is linear in it but for noise."""
    folder = tmp_path_factory.mktemp("task-world")
    dataset = make_dataset(folder / "data")
    rng = np.random.default_rng(1)
    for split in ("train", "val", "test"):
        red, _, blue = (dataset.images(split).mean(axis=(1, 2)) / 255).T
        labels = np.asarray(dataset.labels(split))
        level = 1000 + 50 * red + rng.normal(0, 2, IMAGES)
        targets = np.stack([labels, blue > 0.3, labels == 3, level], axis=1).astype(np.float32)
        np.save(dataset.folder / split / "targets.npy", targets)
    tasks = dataset.model_copy(
        update={
            "classes": column_names(TASKS),
            "heads": tuple(replace(head, thresholds=()) for head in TASKS),
            "strata": CLASSES,
        }
    ).at(dataset.folder)
    colours = COLOURS / 255
    weights = np.concatenate([8 * colours, [[0, 0, 20], [20, -20, -20], [50, 0, 0]]]).astype(np.float32)
    bias = np.concatenate([-4 * (colours**2).sum(axis=1), [-6, -4, 1000]]).astype(np.float32)
    coarse = (np.round(weights * 8) / 8).astype(np.float32)
    return World(
        dataset=tasks,
        fp32=make_model(folder / "fp32", "fp32", weights, bias, TASKS),
        int8=make_model(folder / "int8", "int8", coarse, bias, TASKS),
        profile=make_profile(),
    )


def make_model(
    folder: Path, precision: str, weights: np.ndarray, bias: np.ndarray, heads: tuple[Head, ...] = default_heads(CLASSES)
) -> OnnxModel:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    classes = len(bias)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["planes"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"], transB=1),
    ]
    constants = {"scale": np.float32(1 / 255), "weights": weights, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(model)
    value = OnnxModel(
        stage_name="export" if precision == "fp32" else "quantize",
        precision=precision,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        opset=17,
        ir_version=8,
        classes=column_names(heads),
        heads=heads,
        preprocessing=Preprocessing(height=SIDE, width=SIDE),
        parity=NumericParity(images=4, max_abs=1e-6, nmse=1e-12, top1_agreement_percent=100.0, worst="red/3.png"),
    )
    return value.at(folder)


def make_profile(**changes: object) -> Profile:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    content = {
        "schema": 1,
        "name": "here",
        "title": "a machine like this one",
        "processor": {"architecture": machine, "cores": 1},
        "model": {"opset": 17, "ir_version": 8},
        "sources": {"processor": "this machine"},
    }
    return Profile.model_validate({**content, **changes})
