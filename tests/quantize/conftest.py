"""Small classifiers written node by node, images to calibrate them with, and both through the stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.artefacts import Dataset, OnnxModel, Preprocessing
from edgetune.files import sha256_file
from edgetune.profile import Profile, load_profile
from edgetune.progress import Silent
from edgetune.quantize.heldout import HeldOut
from edgetune.quantize.ladder import Ladder
from edgetune.quantize.samples import draw_samples
from edgetune.quantize.stage import quantize
from edgetune.recipe import QuantizeRecipe

from .networks import heads

SIDE = 32
CLASSES = ("Ähre", "blatt", "花")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(generator: np.random.Generator) -> np.ndarray:
    """Return a blotchy image: neighbouring pixels are alike, and so are a picture's colours."""
    coarse = generator.normal(0.0, 45.0, (8, 8, 3)) + generator.normal(0.0, 40.0, 3)
    fine = np.kron(coarse, np.ones((SIDE // 8, SIDE // 8, 1))) + generator.normal(0.0, 8.0, (SIDE, SIDE, 3))
    return np.clip(fine + 120.0, 0, 255).astype(np.uint8)


def write_dataset(folder: Path, images: dict[str, np.ndarray]) -> Dataset:
    for split, array in images.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        np.save(folder / split / "images.npy", array)
        np.save(folder / split / "labels.npy", np.arange(len(array)) % len(CLASSES))
        (folder / split / "names.json").write_text(json.dumps([f"{split}/{index}.png" for index in range(len(array))]))
    return Dataset(
        source="blotches",
        classes=CLASSES,
        preprocessing=Preprocessing(SIDE, SIDE),
        source_size=(SIDE, SIDE),
        counts={split: len(array) for split, array in images.items()},
        class_counts={split: tuple(np.bincount(np.arange(len(array)) % 3, minlength=3)) for split, array in images.items()},
        content_digest="0" * 64,
        golden=(),
    ).at(folder)


class Net:
    """Writes a classifier: the contract's entry, whatever a test adds, and a head."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def weight(self, *shape: int) -> np.ndarray:
        return self.generator.normal(0.0, 1.0, shape) / np.sqrt(np.prod(shape[1:]))

    def conv(self, x: str, inputs: int = 8, outputs: int = 8, *, size: int = 3, bias: bool = True, **attributes: Any) -> str:
        weight = self.weight(outputs, inputs // attributes.get("group", 1), size, size)
        extra = [self.const(self.generator.normal(0.0, 0.3, outputs))] if bias else []
        return self.add("Conv", x, self.const(weight), *extra, pads=[size // 2] * 4, **attributes)

    def entry(self, mean: tuple[float, ...] = (0.5,) * 3, std: tuple[float, ...] = (0.5,) * 3) -> str:
        x = self.add("Cast", self.add("Transpose", "image", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
        x = self.add("Mul", x, self.const(1.0 / (255.0 * np.reshape(std, (1, 3, 1, 1)))))
        return self.add("Sub", x, self.const(np.reshape(mean, (1, 3, 1, 1)) / np.reshape(std, (1, 3, 1, 1))))

    def stem(self, **entry: Any) -> str:
        return self.add("Relu", self.conv(self.entry(**entry), 3, 8, strides=[2, 2]))

    def head(self, x: str, channels: int = 8) -> onnx.ModelProto:
        flat = self.add("Flatten", self.add("GlobalAveragePool", x), axis=1)
        weight, bias = self.const(3.0 * self.weight(3, channels)), self.const(self.generator.normal(0.0, 0.2, 3))
        return self.finish(self.add("Gemm", flat, weight, bias, transB=1))

    def finish(self, last: str) -> onnx.ModelProto:
        for node in self.nodes:
            node.output[:] = ["logits" if name == last else name for name in node.output]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile("x86-vnni")


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture(scope="session")
def make_dataset() -> Callable[[Path, dict[str, np.ndarray]], Dataset]:
    return write_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    generator = np.random.default_rng(7)
    images = {split: np.stack([picture(generator) for _ in range(48)]) for split in ("train", "test")}
    return write_dataset(tmp_path_factory.mktemp("images"), images)


@pytest.fixture
def as_artefact(tmp_path: Path) -> Callable[[onnx.ModelProto], OnnxModel]:
    """Store a model as the export stage would."""

    def store(model: onnx.ModelProto) -> OnnxModel:
        path = tmp_path / "fp32" / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(model.SerializeToString())
        return OnnxModel(
            stage_name="export",
            precision="fp32",
            sha256=sha256_file(path),
            size_bytes=path.stat().st_size,
            opset=18,
            ir_version=8,
            classes=CLASSES,
            preprocessing=Preprocessing(SIDE, SIDE),
        ).at(path.parent)

    return store


@pytest.fixture
def quantized(
    as_artefact: Callable[[onnx.ModelProto], OnnxModel], dataset: Dataset, profile: Profile, tmp_path: Path
) -> Callable[..., OnnxModel]:
    """Quantize a model with all train images; keywords are the profile's quantization rules, or the recipe's."""

    def run(model: onnx.ModelProto, **keys: Any) -> OnnxModel:
        recipe = {key: value for key, value in keys.items() if key in QuantizeRecipe.model_fields}
        rules = profile.quantization.model_copy(update={key: keys[key] for key in keys.keys() - recipe.keys()})
        target = profile.model_copy(update={"quantization": rules})
        source = as_artefact(model)
        return quantize(
            source,
            dataset,
            QuantizeRecipe(**{"effort": "fast", **recipe}),
            target,
            seed=0,
            folder=tmp_path / "int8",
            progress=Silent(),
        )

    return run


@pytest.fixture
def logits(dataset: Dataset) -> Callable[..., np.ndarray]:
    """Run a file on the test images."""

    def run(path: Path, *, optimised: bool = True) -> np.ndarray:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        result: np.ndarray = session.run(["logits"], {"image": np.array(dataset.images("test"))})[0]
        return result

    return run


@pytest.fixture
def ladder(dataset: Any, profile: Profile, tmp_path: Path) -> Callable[..., Ladder]:
    def make(model: onnx.ModelProto, *, timer: Any = None, agreement: float = 95.0, **recipe: Any) -> Ladder:
        wanted = QuantizeRecipe(**{"held_out_images": 12, **recipe})
        samples = draw_samples(dataset, wanted, 0, learnable=100)
        return Ladder(
            recipe=wanted,
            agreement_percent=agreement,
            samples=samples,
            held_out=HeldOut(images=samples.read(samples.held_out), model=model, heads=heads(), config={}),
            timer=timer,
            seed=0,
            scratch=tmp_path,
            progress=Silent(),
        )

    return make
