"""Grey images and images of five channels: files on disk → data → export → int8 → bundle → runner."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from edgetune import data, outside
from edgetune.artefacts import Checkpoint, Dataset, Figures, Measurement, OnnxModel, Preprocessing, Report
from edgetune.device.runner import main
from edgetune.errors import GraphError
from edgetune.export.stage import export
from edgetune.files import sha256_file
from edgetune.outside.reading import read_file
from edgetune.pipeline import Run
from edgetune.profile import Profile, load_profile
from edgetune.progress import Silent
from edgetune.quantize.stage import quantize
from edgetune.recipe import DataRecipe, ExportRecipe, QuantizeRecipe, Recipe
from edgetune.release.bundle import make_bundle
from edgetune.report.model_card import model_card, preprocessing_in_words

SIDE = 32
SESSION = {
    "providers": ["CPUExecutionProvider"],
    "graph_optimization": "all",
    "intra_op_threads": 1,
    "inter_op_threads": 1,
    "execution_mode": "sequential",
    "config": {},
}
LIMITS = {
    "top1_drop_points": 1.0,
    "golden_max_abs": 0.5,
    **dict.fromkeys(("latency_p90_ms", "size_bytes", "peak_memory_bytes")),
}


@dataclass(frozen=True)
class World:
    """What a build of images with so many channels leaves."""

    channels: int
    images: Path
    dataset: Dataset
    checkpoint: Checkpoint
    fp32: OnnxModel
    int8: OnnxModel
    profile: Profile


def write_images(root: Path, channels: int) -> None:
    """Write blotchy images of two classes: colour pictures for grey, arrays for other numbers of channels."""
    for number in range(40):
        random = np.random.default_rng(number)
        coarse = random.normal(120, 45, (5, 4, 3 if channels == 1 else channels))
        pixels = np.clip(np.kron(coarse, np.ones((8, 12, 1))) + random.normal(0, 8, (40, 48, 1)), 0, 255).astype(np.uint8)
        path = root / ("rust" if number % 2 else "healthy") / f"{number:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if channels == 1:
            Image.fromarray(pixels).save(path.with_suffix(".jpg" if number % 3 else ".png"))
        else:
            np.save(path.with_suffix(".npy"), pixels)


def checkpoint_of(dataset: Dataset) -> Checkpoint:
    channels = dataset.preprocessing.channels
    return Checkpoint(
        backbone="test_efficientnet",
        classes=dataset.classes,
        preprocessing=dataset.preprocessing,
        mean=(0.47,) * channels,
        std=tuple(0.2 + 0.01 * channel for channel in range(channels)),
        weights={},
        val_metrics={"top-1 %": 50.0},
        best_epoch=0,
        epochs=0,
    )


def network_of(channels: int) -> Any:
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=2, in_chans=channels)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # As training leaves them: a batch norm that does nothing is folded to no bias at all.
            torch.nn.init.normal_(module.running_mean, 0.0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def exported(checkpoint: Checkpoint, dataset: Dataset, profile: Profile, folder: Path) -> OnnxModel:
    folder.mkdir()
    network = network_of(dataset.preprocessing.channels)
    return export(
        checkpoint,
        dataset,
        ExportRecipe(),
        profile.model,
        lambda _: network,
        provenance={"edgetune": "test"},
        folder=folder,
        progress=Silent(),
    )


@pytest.fixture(scope="module", params=[1, 5], ids=["grey", "five channels"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    channels, root = request.param, tmp_path_factory.mktemp("world")
    write_images(root / "images", channels)
    recipe = DataRecipe(source=str(root / "images"), image_size=SIDE, channels=channels)
    for name in ("data", "int8"):
        (root / name).mkdir()
    found = data.fingerprint(recipe, None)
    dataset = data.prepare(recipe, seed=0, folder=root / "data", expected_fingerprint=found, progress=Silent())
    profile = load_profile("x86-vnni")
    checkpoint = checkpoint_of(dataset)
    fp32 = exported(checkpoint, dataset, profile, root / "fp32")
    int8 = quantize(fp32, dataset, QuantizeRecipe(), profile, seed=0, folder=root / "int8", progress=Silent())
    return World(channels, root / "images", dataset, checkpoint, fp32, int8, profile)


@pytest.fixture
def bundle(world: World, tmp_path: Path) -> Path:
    environment = {"architecture": "aarch64", "name": "Cortex-A72", "features": ["asimd", "crc32"], "onnxruntime": "1.31.0"}
    measurement = Measurement(where="a lab", is_target=True, raw={"models": {}, "environment": environment})
    figures = Figures(
        images=world.dataset.counts["test"],
        top1_percent=50.0,
        top5_percent=None,
        precision_macro=0.5,
        recall_macro=0.5,
        f1_macro=0.5,
        ece=0.1,
        per_class={},
        confusion=(),
    )
    report = Report(
        title="rust",
        shipped="int8",
        shipped_reason="it is smaller",
        overall="KEPT",
        verdicts=(),
        figures={"int8": figures},
        latency={},
        where="a lab",
        environment={},
        sections={},
    )
    make_bundle(
        folder=tmp_path / "bundle",
        product="rust",
        model=world.int8,
        reference=world.fp32,
        dataset=world.dataset,
        report=report,
        card=model_card(report, world.int8, provenance={}),
        measurement=measurement,
        profile=world.profile,
        session=SESSION,
        limits=LIMITS,
        provenance={},
    )
    return tmp_path / "bundle"


def test_the_exported_file_agrees_with_torch(world: World) -> None:
    assert world.fp32.parity is not None
    assert world.fp32.parity.max_abs < 1e-4
    (image,) = onnx.load(world.fp32.path).graph.input
    assert [side.dim_value for side in image.type.tensor_type.shape.dim][1:] == [SIDE, SIDE, world.channels]
    assert world.fp32.warnings == ()


def test_int8_reads_the_bytes_as_they_are(world: World) -> None:
    assert world.int8.steps[0] == {"step": "integer entry", "nodes": 3}
    assert "QuantizeLinear" not in world.int8.operators
    assert not [name for name in world.int8.float_nodes if name.startswith("conv_stem")]
    assert world.int8.parity is not None
    assert world.int8.parity.nmse < 0.05


def test_a_normalisation_of_other_channels_is_refused(world: World, tmp_path: Path) -> None:
    other = world.checkpoint.model_copy(update={"mean": (0.5,) * 3})
    with pytest.raises(GraphError, match="normalisation does not fit") as caught:
        exported(other, world.dataset, world.profile, tmp_path / "fp32")
    assert [(fault.where, fault.got, fault.expected) for fault in caught.value.faults] == [("mean", "3", str(world.channels))]


def test_the_manifest_and_the_card_say_the_channels(world: World, bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    colour = {1: "grey", 5: "5 channels"}[world.channels]
    assert manifest["preprocessing"]["channels"] == world.channels
    assert manifest["model"]["input"]["shape"] == ["N", SIDE, SIDE, world.channels]
    assert manifest["model"]["input"]["colour"] == colour
    card = (bundle / "README.md").read_text()
    assert f"uint8 `[N, 32, 32, {world.channels}]`, {colour}, 0 to 255" in card
    assert f"# uint8 [N, H, W, {world.channels}], {colour}: replace with your own" in card
    assert f"predict . image.{'jpg' if world.channels == 1 else 'npy'}\n" in card
    assert "RGB" not in card


def test_the_runner_measures_checks_and_predicts(
    world: World, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(bundle), "--quick", "--json"]) == 0
    golden = json.loads(capsys.readouterr().out)["golden"]
    assert golden["decode"]["status"] == "exact"
    assert golden["logits"]["bit_equal"]
    test = world.dataset.folder / "test" / "images.npy"
    request = {
        "schema": 1,
        "models": [
            {"name": model.precision, "path": str(model.path), "sha256": sha256_file(model.path)}
            for model in (world.fp32, world.int8)
        ],
        "session": SESSION,
        "eval": {"images": str(test), "limit": None},
        "latency": {"warmup": 1, "rounds": 1, "queries_per_round": 2},
        "footprint": True,
        "golden": str(bundle / "golden"),
        "preprocessing": world.dataset.preprocessing.to_dict(),
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    assert main(["measure", str(tmp_path / "request.json"), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    logits = np.load(tmp_path / "out/logits-int8.npy")
    names = world.dataset.names("test")
    assert main(["predict", str(bundle), *(str(world.images / name) for name in names), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in rows] == [world.dataset.classes[best] for best in logits.argmax(axis=1)]


def test_a_file_is_quantized_with_images_of_its_channels(world: World, tmp_path: Path) -> None:
    recipe = Recipe(target="x86-vnni", data=DataRecipe(source=str(world.images)))
    run = Run(recipe=recipe, profile=world.profile, folder=tmp_path, progress=Silent())
    brought = outside.FileRun.of(run, outside.Given(file=str(world.fp32.path)))
    assert brought.fp32.sha256 == world.fp32.sha256
    assert brought.reduced is not None
    assert brought.reduced.sha256 == world.int8.sha256


def test_a_bundle_is_checked_with_images_of_its_channels(world: World, bundle: Path) -> None:
    measurement, rows = outside.check_bundle(bundle, str(world.images), quick=True, progress=Silent())
    assert measurement.raw["models"]["int8"]["eval"]["images"] == world.dataset.counts["test"]
    assert {row.verdict for row in rows if row.name in ("golden images decoded", "golden logits")} == {"KEPT"}
    assert {row.verdict for row in rows if row.name.startswith("golden images, ")} <= {"SKIPPED"}


def test_a_file_whose_shape_is_not_what_its_metadata_says_is_refused(world: World, tmp_path: Path) -> None:
    model = onnx.load(world.fp32.path)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 3
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(GraphError) as caught:
        read_file(outside.Given(file=str(tmp_path / "other.onnx")), DataRecipe(), world.profile.model)
    (fault,) = caught.value.faults
    assert (fault.got, fault.expected) == (
        "image: UINT8 [N, 32, 32, 3]",
        f"image: UINT8 [N, 32, 32, {world.channels}]",
    )


def test_the_words_of_rgb_are_what_they_were() -> None:
    text = preprocessing_in_words(Preprocessing(height=96, width=96))
    rgb = (
        "Turn the image upright by its EXIF orientation and convert it to 8-bit RGB (transparency on white); then the largest "
    )
    assert text.startswith(rgb)
