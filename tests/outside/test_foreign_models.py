"""Other people's ONNX files: read, brought to the contract, and taken down the whole line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.artefacts import OnnxModel
from edgetune.device.session import open_session
from edgetune.errors import DataError, GraphError, UsageError
from edgetune.files import sha256_file
from edgetune.numeric import PLAIN_SESSION
from edgetune.onnxfile import read_metadata
from edgetune.outside import FileRun

from .models import BYTE, FLOAT, LEVELS, SIDE, brightness


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
