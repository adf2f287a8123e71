"""Other people's ONNX files: read, brought to the contract, and taken down the whole line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetune.artefacts import OnnxModel
from edgetune.cli.main import main
from edgetune.device.session import open_session
from edgetune.errors import DataError, GraphError, UsageError
from edgetune.files import sha256_file
from edgetune.numeric import PLAIN_SESSION
from edgetune.onnxfile import read_metadata
from edgetune.outside import FileRun, Given
from edgetune.pipeline import Run
from edgetune.profile import load_profile
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe, Recipe

SIDE = 32
LEVELS = {"bright": 178, "dark": 102, "mid": 140}
"""The mean byte of each class; in [-1, 1] that is 0.4, -0.2 and 0.1."""
QUICK = [
    part
    for setting in ("quantize.effort=fast", "quantize.calibration_images=24", "export.parity_images=6")
    for part in ("--set", setting)
]
MACS = 2_289_088
"""Half of what torch.utils.flop_counter counts of timm's test_efficientnet."""
MEAN, STD = (np.reshape(values, (3, 1, 1)).astype(np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
FLOAT, BYTE = TensorProto.FLOAT, TensorProto.UINT8


@pytest.fixture(scope="session")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 24 blotchy grey-ish pictures that differ in brightness alone."""
    folder = tmp_path_factory.mktemp("levels") / "levels"
    generator = np.random.default_rng(1)
    for name, level in LEVELS.items():
        (folder / name).mkdir(parents=True)
        for index in range(24):
            blotches = np.kron(generator.normal(0, 25, (8, 8, 3)), np.ones((SIDE // 8, SIDE // 8, 1)))
            pixels = level + blotches - blotches.mean()
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{index:02}.png")
    return folder


def brightness(
    path: Path,
    *,
    classes: Sequence[str] = tuple(LEVELS),
    shape: Sequence[Any] = ("N", 3, SIDE, SIDE),
    kind: int = FLOAT,
    last: str = "",
    second: bool = False,
    names: tuple[str, str] = ("pixels", "scores"),
    opset: int = 17,
    reshape: Sequence[int] = (),
) -> Path:
    """Write a classifier that measures the mean of pixels in [-1, 1]: the nearest of its classes' means has the largest score.

    -(m - c)^2 = 2 c m - c^2 - m^2, and the last term is the same for all.
    """
    centres = np.array([LEVELS.get(name, 1000) / 127.5 - 1 for name in classes], np.float32)
    weight = np.repeat(40 * centres[:, None] / 3, 3, axis=1)
    constants = {"w": weight, "b": -20 * centres**2, "half": np.full((1, 1, 1, 1), 127.5, np.float32)}
    nodes, x = [], names[0]

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [f"{operator}{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    if kind == BYTE:
        x = add("Cast", x, to=FLOAT)
        x = add("Div", x, "half")
        constants["one"] = np.ones((1, 1, 1, 1), np.float32)
        x = add("Sub", x, "one")
    if shape[3] in (1, 3):
        x = add("Transpose", x, perm=[0, 3, 1, 2])
    x = add("GlobalAveragePool", x)
    if reshape:
        constants["to"] = np.array(reshape, np.int64)
        x = add("Reshape", x, "to")
    else:
        x = add("Flatten", x, axis=1)
    if 1 in (shape[1], shape[3]):
        constants["w"] = weight.sum(axis=1, keepdims=True)
    x = add("Gemm", x, "w", "b", transB=1)
    scores = add(last, x, axis=1) if last else x
    nodes[-1].output[0] = names[1]
    outputs = [helper.make_tensor_value_info(names[1], FLOAT, [shape[0], len(classes)])]
    if second:
        add("Relu", scores if last else names[1])
        outputs.append(helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, [shape[0], len(classes)]))
    graph = helper.make_graph(
        nodes,
        "someone's",
        [helper.make_tensor_value_info(names[0], kind, shape)],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model.metadata_props.add(key="source", value="/home/someone/secret")
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def brought(levels: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FileRun]:
    """Open the run of a file with the pictures; keywords are what is said of the file, and `data` what is said of them."""
    folder = tmp_path_factory.mktemp("brought")

    def run(path: Path, *, data: dict[str, Any] | None = None, **said: Any) -> FileRun:
        recipe = Recipe(target="x86-vnni", data=DataRecipe(source=str(levels), **(data or {})))
        started = Run(recipe=recipe, profile=load_profile("x86-vnni"), folder=folder, progress=Silent())
        return FileRun.of(started, Given.of({"file": str(path), **said}))

    return run


def top1(model: OnnxModel, run: FileRun) -> float:
    """Return the accuracy of a file on the test images, all at once."""
    images = np.array(run.dataset.images("test"))
    logits = open_session(model.path, PLAIN_SESSION).run(["logits"], {"image": images})[0]
    return 100 * float((logits.argmax(axis=1) == run.dataset.labels("test")).mean())


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"shape": (1, 3, SIDE, SIDE), "reshape": (1, 3)},
        {"shape": (4, 3, SIDE, SIDE), "reshape": (4, -1)},
        {"shape": ("N", SIDE, SIDE, 3)},
        {"shape": (1, 1, SIDE, SIDE)},
        {"last": "Softmax"},
        {"last": "LogSoftmax", "opset": 13, "shape": (1, 3, SIDE, SIDE)},
        {"names": ("image", "logits"), "last": "Softmax"},
        {"names": ("logits", "image")},
        {"opset": 11},
    ],
    ids=lambda made: " ".join(map(str, made.values())) or "plain",
)
def test_any_form_is_brought_to_the_contract(made: dict[str, Any], brought: Any, tmp_path: Path) -> None:
    run = brought(brightness(tmp_path / "theirs.onnx", **made), pixels="half")
    fp32 = run.fp32
    model = onnx.load(fp32.path)
    assert [node.op_type for node in model.graph.node][:4] == ["Transpose", "Cast", "Mul", "Sub"]
    assert "Softmax" not in str(fp32.operators)
    assert fp32.parity is not None
    assert fp32.parity.max_abs < 1e-4
    assert fp32.macs == 3 * (1 if made.get("shape", ("N", 3))[1] == 1 else 3)
    assert top1(fp32, run) == 100
    assert fp32.warnings == ()
    told = read_metadata(model)
    assert told.classes == tuple(LEVELS)
    assert told.provenance["model_sha256"] == sha256_file(tmp_path / "theirs.onnx")
    assert b"/home/someone" not in fp32.path.read_bytes()


@pytest.mark.parametrize("shape", [("N", 3, SIDE, SIDE), (1, SIDE, SIDE, 3)], ids=["NCHW", "NHWC"])
def test_a_graph_that_takes_bytes_needs_no_word_on_pixels(shape: Any, brought: Any, tmp_path: Path) -> None:
    run = brought(brightness(tmp_path / "theirs.onnx", shape=shape, kind=BYTE))
    assert top1(run.fp32, run) == 100
    with pytest.raises(UsageError, match="takes bytes"):
        brought(run.file.path, pixels="half")


def test_mean_and_std_are_what_a_preset_stands_for(brought: Any, tmp_path: Path) -> None:
    path = brightness(tmp_path / "theirs.onnx")
    models = [brought(path, **said).fp32 for said in ({"pixels": "half"}, {"mean": (0.5,) * 3, "std": (0.5,) * 3})]
    weights = [{t.name: t.raw_data for t in onnx.load(model.path).graph.initializer} for model in models]
    assert weights[0] == weights[1]


def test_pixels_are_never_guessed_but_measured(brought: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not say what pixels") as caught:
        brought(brightness(tmp_path / "theirs.onnx")).fp32  # noqa: B018 - a property that computes
    table = {fault.where: fault.problem.split()[1] for fault in caught.value.faults}
    # Means of ImageNet put `mid` next to `bright`; [0, 1] and bytes put everything there.
    assert next(iter(table)) == "--pixels half"
    assert table == {
        "--pixels half": "100.00",
        "--pixels imagenet": "66.67",
        "--pixels unit": "33.33",
        "--pixels bytes": "33.33",
    }
    assert "give --pixels half, which is right most often here" in caught.value.remedy


def test_where_no_preset_is_better_than_chance_none_is_recommended(brought: Any, tmp_path: Path) -> None:
    path = brightness(tmp_path / "theirs.onnx", classes=("?1", "?2", "?3"))
    with pytest.raises(UsageError, match="does not say what pixels") as caught:
        brought(path).fp32  # noqa: B018 - a property that computes
    assert "none is better than chance" in caught.value.remedy


def test_classes_in_another_order_are_a_warning_and_labels_mend_it(brought: Any, tmp_path: Path) -> None:
    order = ("mid", "bright", "dark")
    path = brightness(tmp_path / "theirs.onnx", classes=order)
    (warning,) = brought(path, pixels="half").fp32.warnings
    assert "decides 0 of" in warning
    assert "no better than chance (p = 1)" in warning
    assert "--labels" in warning
    (tmp_path / "labels.txt").write_text("\n".join(order) + "\n")
    run = brought(path, pixels="half", labels=str(tmp_path / "labels.txt"))
    assert run.fp32.warnings == ()
    assert run.fp32.classes == order
    assert top1(run.fp32, run) == 100
    assert run.dataset.class_counts["test"] == (5, 5, 5)


def test_a_file_may_know_more_classes_than_the_folder(brought: Any, tmp_path: Path) -> None:
    names = ("zebra", "mid", "lynx", "bright", "dark")
    path = brightness(tmp_path / "theirs.onnx", classes=names)
    (tmp_path / "labels.txt").write_text("\n".join(names))
    run = brought(path, pixels="half", labels=str(tmp_path / "labels.txt"))
    assert run.fp32.classes == names
    assert run.dataset.class_counts["test"] == (0, 5, 0, 5, 5)
    assert sorted(set(run.dataset.labels("train").tolist())) == [1, 3, 4]
    assert top1(run.fp32, run) == 100
    assert run.fp32.warnings[0].startswith("the images are of 3 of the model's 5 classes")
    with pytest.raises(DataError, match="gives 5 scores; the images are of 3 classes"):
        brought(path, pixels="half").dataset  # noqa: B018 - a property that computes


def test_weights_in_a_file_beside_the_model_are_taken_in(brought: Any, tmp_path: Path) -> None:
    whole = brightness(tmp_path / "whole.onnx")
    apart = tmp_path / "apart.onnx"
    onnx.save(onnx.load(whole), apart, save_as_external_data=True, location="weights.bin", size_threshold=0)
    run = brought(apart, pixels="half")
    assert top1(run.fp32, run) == 100
    digest = run.file.digest
    assert digest != run.file.sha256
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[-1] ^= 1
    (tmp_path / "weights.bin").write_bytes(content)
    assert brought(apart, pixels="half").file.digest != digest
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(GraphError, match=r"weights in other files\n  - weights\.bin: is not a file beside the model"):
        brought(apart, pixels="half")


@pytest.mark.parametrize(
    ("made", "said", "message"),
    [
        ({"shape": ("N", 3, "H", "W")}, {}, r"does not say the size of the images.*--set data\.image_size=224"),
        ({"shape": ("N", 4, SIDE, SIDE)}, {}, r"input: is not one of images; got pixels: FLOAT \[N, 4, 32, 32\]; expected"),
        ({"kind": TensorProto.FLOAT16, "shape": ("N", 3, 8, 8)}, {}, "FLOAT16"),
        ({"second": True}, {}, r"there are several; got scores: FLOAT \[N, 3\], Relu.*--output-name scores"),
        ({"second": True}, {"output_name": "nosuch"}, r"--output-name: is not an output; got nosuch; expected one of scores"),
        ({"classes": ("one",)}, {}, "is not one of classes"),
        ({"opset": 22}, {}, "opset: cannot be used; got 22; expected 7 to 21"),
        ({"shape": (1, 3, SIDE, 48)}, {}, "only squares"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    made: dict[str, Any], said: dict[str, Any], message: str, brought: Any, tmp_path: Path
) -> None:
    kind = made.pop("kind", FLOAT)
    path = brightness(tmp_path / "theirs.onnx", **made)
    if kind != FLOAT:
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.elem_type = kind
        onnx.save(model, path)
    with pytest.raises(GraphError, match=message):
        brought(path, pixels="half", **said)


def test_a_named_output_of_several_is_the_only_one_left(brought: Any, tmp_path: Path) -> None:
    run = brought(brightness(tmp_path / "theirs.onnx", second=True), pixels="half", output_name="scores")
    assert "Relu" not in run.fp32.operators
    assert top1(run.fp32, run) == 100


def test_a_size_that_the_file_leaves_open_is_given(brought: Any, tmp_path: Path) -> None:
    path = brightness(tmp_path / "theirs.onnx", shape=("N", 3, "H", "W"))
    run = brought(path, pixels="half", data={"image_size": 24})
    assert run.fp32.preprocessing.shape == (24, 24, 3)
    fixed = brightness(tmp_path / "fixed.onnx")
    with pytest.raises(UsageError, match=r"data\.image_size: is not what the model says; got 24; expected 32"):
        brought(fixed, pixels="half", data={"image_size": 24})


def test_a_batch_that_is_baked_in_is_refused_with_the_node(brought: Any, tmp_path: Path) -> None:
    """Images laid out last: a Reshape of the first side cannot open that."""
    path = brightness(tmp_path / "theirs.onnx", shape=(1, 3, SIDE, SIDE), reshape=(1, 3))
    model = onnx.load(path)
    row = numpy_helper.from_array(np.zeros((1, 1), np.float32), "row")
    model.graph.initializer.append(row)
    gemm = model.graph.node[-1]
    wider = np.pad(numpy_helper.to_array(model.graph.initializer[0]), ((0, 0), (0, 1)))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(wider, "w"))
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Concat", [gemm.input[0], "row"], ["wide"], axis=1))
    model.graph.node[-1].input[0] = "wide"
    onnx.save(model, path)
    with pytest.raises(
        GraphError, match=r"is made for batches of 1, and cannot be run on 3 at once: .*Concat(.|\n)*dynamic_axes"
    ):
        brought(path, pixels="half").fp32  # noqa: B018 - a property that computes


def test_labels_that_cannot_be_used_are_refused(brought: Any, tmp_path: Path) -> None:
    path, labels = brightness(tmp_path / "theirs.onnx"), tmp_path / "labels.txt"
    for text, message in (
        ("mid\nbright\n", "names 2 classes; theirs.onnx gives 3 scores"),
        ("mid\nmid\n\ndark", r"does not name every class once\n  - line 1, 2: the same name; got mid\n  - line 3: no name"),
        ("", "does not name any class"),
    ):
        labels.write_text(text)
        with pytest.raises(UsageError, match=message):
            brought(path, pixels="half", labels=str(labels))
    labels.write_text("a\nb\nc")
    with pytest.raises(DataError, match="the images' classes are not the model's: got bright, dark, mid, expected a, b, c"):
        brought(path, pixels="half", labels=str(labels)).dataset  # noqa: B018 - a property that computes


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"pixels": "half", "mean": (0.5,), "std": (0.5,)}, "give either pixels or mean and std"),
        ({"mean": (0.5, 0.5, 0.5)}, "mean and std need one number per channel each; got 3 and 0"),
        ({"mean": (123.675,), "std": (58.395,)}, "mean is that of pixels in .0, 1.; got 123.675: divide .* std is that of"),
        ({"pixels": "imagnet"}, "did you mean 'imagenet'"),
        ({"mean": (0.5,) * 2, "std": (0.5,) * 2}, "are for 2 channels; the file takes 3"),
    ],
)
def test_pixels_that_cannot_be_are_refused(said: dict[str, Any], message: str, brought: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        brought(brightness(tmp_path / "theirs.onnx"), **said)


def test_imagenet_means_are_not_for_grey(brought: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pixels imagenet is for 3 channels; the file takes 1"):
        brought(brightness(tmp_path / "theirs.onnx", shape=(1, 1, SIDE, SIDE)), pixels="imagenet")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network as its user would export it: float NCHW in, batch norms as they stand, for one image."""
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.1)
    path: Path = tmp_path_factory.mktemp("exported") / "timms.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            opset_version=13,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    assert "BatchNormalization" in {node.op_type for node in onnx.load(path).graph.node}
    return path


def test_what_torch_exports_today_is_taken_as_it_is(brought: Any, tmp_path: Path) -> None:
    """Its new exporter, with everything as it comes: a newer opset, a fixed batch in Reshapes, weights in a second file."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    network = nn.Sequential(features, nn.Flatten(), nn.Linear(32, 3), nn.Softmax(dim=1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, SIDE, SIDE),), tmp_path / "todays.onnx", dynamo=True, verbose=False)
    run = brought(tmp_path / "todays.onnx", pixels="imagenet")
    assert run.fp32.parity is not None
    assert run.fp32.parity.max_abs < 1e-5
    assert run.file.apart == bool(list(tmp_path.glob("*.data")))
    images = np.array(run.dataset.images("test")[:5])
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    logits = open_session(run.fp32.path, PLAIN_SESSION).run(["logits"], {"image": images})[0]
    with torch.inference_mode():
        assert np.abs(network[:-1](pixels).numpy() - logits).max() < 1e-5


def test_a_network_of_others_goes_down_the_whole_line(
    exported: Path, levels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shown = ["--data", str(levels), "--target", "x86-vnni", "--output", str(run), *QUICK]
    assert main(["quantize", str(exported), "--pixels", "imagenet", *shown]) in (0, 10)
    talk = capsys.readouterr()
    assert "entry from bytes: " in talk.out
    assert "pixels imagenet" in talk.out
    assert f"bundle {run / 'bundle'}" in talk.out
    assert "the scores are taken for the folders in order: bright, dark, mid" in talk.err
    report = json.loads((run / "report.json").read_text())
    assert report["sections"]["import"]["macs"] == MACS
    assert report["title"].startswith(f"{exported.stem} on levels for ")
    assert report["sections"]["model"]["sha256"] == sha256_file(exported)
    assert "train" not in report["sections"]
    rows = {row["name"]: row["verdict"] for row in report["verdicts"]}
    assert rows["given file ↔ ONNX fp32 logits"] == "KEPT"
    assert "## Model" in (run / "report.md").read_text()
    manifest = json.loads((run / "bundle" / "manifest.json").read_text())
    assert manifest["provenance"]["model_sha256"] == sha256_file(exported)
    assert "weights" not in manifest["provenance"]
    assert main(["check", str(run / "bundle"), "--data", str(levels), "--quick"]) in (0, 10)
    assert "golden logits" in capsys.readouterr().out


def test_a_named_device_times_what_the_quantizer_chooses_between(
    exported: Path, levels: Path, device_python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, run = tmp_path / "here.toml", tmp_path / "run"
    assert main(["profile", "new", "--device", "local", "--output", str(profile)]) == 0
    device = f"python:{device_python}"
    given = ["quantize", str(exported), "--pixels", "imagenet", "--data", str(levels), "--target", str(profile)]
    patient = ["--effort", "default", "--set", "quantize.near_enough=0", "--set", "quantize.reconstruction_steps=1"]
    assert main([*given, "--device", device, *patient, "--output", str(run), *QUICK[2:]]) in (0, 10)
    assert "measuring m0, m1, m2, m3, m4 on " in capsys.readouterr().err
    rungs = json.loads((run / "report.json").read_text())["sections"]["quantize"]["rungs"]
    stem = next(rung for rung in rungs if rung["rung"] == "float stem")
    assert "4 layers" in stem["note"]
    assert all(rung["latency_p50_ms"] > 0 < rung["fp32_latency_p50_ms"] for rung in rungs)


def test_a_run_of_a_file_replays_itself_and_trains_nothing(
    levels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = brightness(tmp_path / "theirs.onnx", last="Softmax"), tmp_path / "run"
    first = ["quantize", str(path), "--pixels", "half", "--data", str(levels), "--output", str(run), *QUICK]
    assert main(first) in (0, 10)
    talk = capsys.readouterr()
    assert "the final Softmax is left out" in talk.err
    assert "fp32: top-1 100.00 %" in talk.out
    before = (run / "bundle" / "manifest.json").read_bytes()
    for command in (["quantize", str(run), "--json"], ["build", str(run)], first):
        assert main(command) in (0, 10)
        said = capsys.readouterr().err.splitlines()
        kept = [line.split(":")[0] for line in said if line.endswith(": unchanged")]
        assert kept == ["data", "import", "quantize", "measure", "report"]
    assert (run / "bundle" / "manifest.json").read_bytes() == before
    assert main(["train", str(run)]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err
    assert main([*first, "--backbone", "resnet18", "--set", "train.epochs=3"]) == 2
    refused = capsys.readouterr().err
    assert "--backbone: has no meaning for a model that is trained already" in refused
    assert "--set train.epochs=3" in refused


def test_a_bundle_of_more_classes_is_checked_with_the_folders_there_are(
    levels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, run = ("mid", "lynx", "bright", "dark"), tmp_path / "run"
    path, labels = brightness(tmp_path / "theirs.onnx", classes=names), tmp_path / "labels.txt"
    labels.write_text("\n".join(names))
    options = ["--pixels", "half", "--labels", str(labels), "--data", str(levels), "--output", str(run), *QUICK]
    assert main(["quantize", str(path), *options]) in (0, 10)
    report = json.loads((run / "report.json").read_text())
    assert report["figures"]["fp32"]["top1_percent"] == 100
    assert "from labels.txt" in report["sections"]["model"]["names of the classes"]
    capsys.readouterr()
    assert main(["check", str(run), "--data", str(levels), "--quick"]) in (0, 10)
    talk = capsys.readouterr()
    assert "the images are of 3 of the bundle's 4 classes" in talk.err
    assert "against the manifest" in talk.out


def test_options_of_a_file_are_refused_for_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "--pixels", "half", "--output", str(tmp_path / "run")]) == 2
    assert "--pixels: has no meaning for a recipe" in capsys.readouterr().err
    path = brightness(tmp_path / "theirs.onnx")
    assert main(["quantize", str(path), "--output", str(tmp_path / "run")]) == 2
    assert "give --data DIR" in capsys.readouterr().err
    assert main(["quantize", str(path), "--data", "digits", "--mean", "a,b", "--output", str(tmp_path / "run")]) == 2
    assert "expected numbers such as 0.485,0.456,0.406" in capsys.readouterr().err
