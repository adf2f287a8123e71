"""What ONNX Runtime makes of our int8 files of known networks: operators, float layers and conversions, held by golden files.

The networks have random weights: the operators do not depend on them. `pytest tests/quantize --update-goldens` writes the files
anew. They hold to the letter for the ONNX Runtime and the architecture that wrote them; another one may fuse more or name
operators otherwise, but must not leave more in float.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgetune.artefacts import Checkpoint, Dataset, OnnxModel, Preprocessing
from edgetune.export.stage import export
from edgetune.profile import Profile
from edgetune.progress import Silent
from edgetune.quantize.proof import optimised_graph
from edgetune.quantize.stage import quantize
from edgetune.recipe import ExportRecipe, QuantizeRecipe

GOLDEN = Path(__file__).parent / "golden"
SIDE = 64
IMAGES = 16
SQUEEZES = ("efficientnet_b0", "mobilenetv3_large_100", "mobilenetv3_small_100", "regnety_002")
PLAIN = ("mobilenetv2_100", "mobilenetv4_conv_small", "regnetx_002", "resnet18", "tf_efficientnet_lite0")
QUICK = ("mobilenetv3_small_100", "tf_efficientnet_lite0")
BACKBONES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in sorted((*SQUEEZES, *PLAIN))
]
LAYERS = ("QLinearConv", "QGemm", "QLinearMatMul", "Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul")
INTEGER_ALONE = {
    *("Flatten", "NhwcMaxPool", "QGemm", "QLinearAdd", "QLinearConv", "QLinearGlobalAveragePool", "QLinearMul"),
    *("QLinearSigmoid", "Transpose"),
}


@pytest.fixture(scope="module")
def pictures(make_dataset: Callable[..., Dataset], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    generator = np.random.default_rng(3)
    coarse = generator.normal(120.0, 50.0, (2 * IMAGES, 8, 8, 3)).repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    images = np.clip(coarse + generator.normal(0.0, 8.0, coarse.shape), 0, 255).astype(np.uint8)
    written = make_dataset(tmp_path_factory.mktemp("pictures"), {"train": images[:IMAGES], "test": images[IMAGES:]})
    return written.model_copy(update={"preprocessing": Preprocessing(SIDE, SIDE), "source_size": (SIDE, SIDE)}).at(
        written.folder
    )


def network_of(name: str, images: np.ndarray, classes: int) -> Any:
    """Return a network of random weights whose batch norms have the statistics of the images."""
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=classes)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
                # Fresh norms are all alike, and the export merges what is alike.
                module.weight.add_(torch.rand_like(module.weight), alpha=0.1)
                module.bias.add_(torch.rand_like(module.bias), alpha=0.1)
        network.train()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0)
    return network.eval()


def int8_of(name: str, dataset: Dataset, profile: Profile, folder: Path) -> OnnxModel:
    network = network_of(name, np.array(dataset.images("train")), len(dataset.classes))
    checkpoint = Checkpoint(
        backbone=name,
        classes=dataset.classes,
        preprocessing=dataset.preprocessing,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        weights={},
        val_metrics={},
        best_epoch=0,
        epochs=0,
    )
    recipe, caps = ExportRecipe(parity_images=3), profile.model
    source = export(
        checkpoint, dataset, recipe, caps, lambda _: network, provenance={}, folder=folder / "fp32", progress=Silent()
    )
    quick = QuantizeRecipe(effort="fast", ranges="minmax", bias_correction=False, calibration_images=8, held_out_images=4)
    return quantize(source, dataset, quick, profile, seed=0, folder=folder / "int8", progress=Silent())


def golden_of(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", BACKBONES)
def test_the_runtime_makes_of_it_what_it_did(
    name: str, pictures: Dataset, profile: Profile, tmp_path: Path, update_goldens: bool
) -> None:
    model = int8_of(name, pictures, profile, tmp_path)
    proof = optimised_graph(model.path, profile.runtime)
    assert proof.rounded_by_runtime == ()
    found = {
        "onnxruntime": ".".join(onnxruntime.__version__.split(".")[:2]),
        "architecture": platform.machine(),
        "operators": proof.operators,
        "float_layers": list(proof.float_layers),
        "conversions": [str(conversion) for conversion in proof.conversions],
    }
    if update_goldens:
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    golden = golden_of(name)
    if all(found[key] == golden[key] for key in ("onnxruntime", "architecture")):
        assert found == golden
    assert layers(found) == layers(golden)
    assert set(proof.float_layers) <= set(golden["float_layers"])
    assert len(proof.conversions) <= len(golden["conversions"])


def layers(histogram: dict[str, Any]) -> int:
    return sum(histogram["operators"].get(name, 0) for name in LAYERS)


@pytest.mark.parametrize("name", sorted((*SQUEEZES, *PLAIN)))
def test_nothing_is_left_in_float(name: str) -> None:
    golden = golden_of(name)
    assert golden["float_layers"] == []
    assert golden["conversions"] == []
    assert golden["operators"].keys() <= INTEGER_ALONE
    squeezes = golden["operators"].get("QLinearMul", 0) > 0 and golden["operators"]["QLinearGlobalAveragePool"] > 1
    assert squeezes == (name in SQUEEZES)
