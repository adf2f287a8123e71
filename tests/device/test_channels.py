"""Grey images and images of any number of channels, from the bytes of a file to a model's answer."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgetune.device.arrays import HEADER_BYTES, array_size
from edgetune.device.bundle import read_bundle
from edgetune.device.decode import ImageFault, decode_image, decode_image_noting
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.golden import check_golden
from edgetune.device.preprocess import Preprocessing, image_tensor
from edgetune.device.runner import main
from edgetune.device.session import open_session

Seal = Callable[[Path, dict[str, Any]], None]
RGB = np.random.default_rng(1).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def png(picture: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns that a newer version than needed is written
        np.lib.format.write_array(buffer, array, version, allow_pickle=array.dtype.hasobject)
    return buffer.getvalue()


# Grey


def test_grey_is_pillows_own_luma_of_every_colour() -> None:
    # Every red and green, with blues between them: 256 x 256 x 16 colours.
    red, green, blue = np.meshgrid(np.arange(256), np.arange(256), np.arange(0, 256, 17), indexing="ij")
    colours = np.stack([red, green, blue], axis=-1).reshape(256, -1, 3).astype(np.uint8)
    picture = Image.fromarray(colours)
    np.testing.assert_array_equal(decode_image(png(picture), 1)[..., 0], np.asarray(picture.convert("L")))


@given(seed=st.integers(0, 1000), kind=st.sampled_from(["JPEG", "WEBP", "PNG", "BMP"]))
@settings(max_examples=20)
def test_grey_is_the_luma_of_the_decoded_colours(seed: int, kind: str) -> None:
    colours = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(colours).save(buffer, kind)
    expected = np.asarray(Image.fromarray(decode_image(buffer.getvalue())).convert("L"))
    np.testing.assert_array_equal(decode_image(buffer.getvalue(), 1)[..., 0], expected)


def test_what_is_grey_stays_what_it_was() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for picture in (Image.fromarray(values), Image.fromarray(np.repeat(values[..., None], 3, 2))):
        pixels, notes = decode_image_noting(png(picture), 1)
        np.testing.assert_array_equal(pixels, values[..., None])
        assert notes == ()
    wide, notes = decode_image_noting(png(Image.fromarray(values.astype(np.uint16) * 257)), 1)
    np.testing.assert_array_equal(wide, values[..., None])
    assert notes == ("16-bit grey reduced to 8 bits",)


def test_alpha_and_orientation_come_before_grey() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.random.default_rng(2).integers(0, 256, (7, 5, 1), dtype=np.uint8)
    content = png(Image.fromarray(np.concatenate([RGB, alpha], axis=2)), exif=exif)
    pixels, notes = decode_image_noting(content, 1)
    assert pixels.shape == (5, 7, 1)
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(Image.fromarray(decode_image(content)).convert("L")))
    assert notes == ("alpha composited on white", "EXIF orientation 6 applied", "colours turned into grey")


# Arrays


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 64])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_array_is_taken_as_it_is(channels: int, version: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)  # a board without Pillow reads arrays, too
    array = np.random.default_rng(channels).integers(0, 256, (6, 4, channels), dtype=np.uint8)
    for stored in (array, np.asfortranarray(array)):
        pixels, notes = decode_image_noting(npy(stored, version), channels)
        np.testing.assert_array_equal(pixels, array)
        assert pixels.flags.c_contiguous
        assert notes == ()
    assert array_size(npy(array)[:HEADER_BYTES]) == (6, 4)


def test_an_array_without_a_third_axis_is_grey() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decode_image(npy(values), 1), values[..., None])
    with pytest.raises(ImageFault, match=r"is an array of uint8 \[3, 4\], expected uint8 \[H, W, 3\]$"):
        decode_image(npy(values), 3)


GOOD = npy(np.zeros((6, 4, 5), np.uint8))


def promising(shape: str) -> bytes:
    """Return a file whose header promises a shape, and nothing else."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(np.zeros((6, 4, 3), np.uint8)), r"is an array of uint8 \[6, 4, 3\], expected uint8 \[H, W, 5\]$"),
        (npy(np.zeros((6, 4, 5), np.float32)), r"is an array of float32 \[6, 4, 5\], expected uint8"),
        (npy(np.zeros((6, 4, 5), np.int8)), r"is an array of int8"),
        (npy(np.zeros((1, 6, 4, 5), np.uint8)), r"is an array of uint8 \[1, 6, 4, 5\], expected"),
        (npy(np.array([{}], dtype=object)), r"is an array of object \[1\], expected"),
        (npy(np.zeros((0, 4, 5), np.uint8)), "has 4x0 pixels"),
        (promising("(10001, 10000, 5)"), "has 100 megapixels, more than the cap of 100"),
        (promising("(100000000, 100000000, 5)"), "more than the cap of 100"),
        (promising("(10000, 10000, 5)"), "is truncated [(]0 of 500000000 bytes of pixels[)]"),
        (promising("(-2, -3, 5)"), "has -3x-2 pixels"),
        (promising("(2, True, 5)"), "."),
        (promising("__import__('os').getcwd()"), "a header that cannot be read"),
        (GOOD[:-1], "is truncated [(]119 of 120 bytes of pixels[)]"),
        (GOOD + b"\0", "has 1 bytes behind its array; expected one picture"),
        (GOOD[:40], "is an .npy file with a header that cannot be read"),
        (b"\x93NUMPY", "is an .npy file with a header that cannot be read"),
        (b"\x93NUMPY\x03\x00" + GOOD[8:], r"cannot be read \(its version is 3.0\)"),
        (b"PK\x03\x04 an .npz", r"is not an .npy file, expected one with an array uint8 \[H, W, 5\]"),
        (png(Image.fromarray(RGB)), r"is not an .npy file, expected one with an array uint8 \[H, W, 5\]"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_picture_of_five_channels_is_a_fault_by_name(content: bytes, words: str) -> None:
    with pytest.raises(ImageFault, match=words) as caught:
        decode_image(content, 5)
    assert "\n" not in str(caught.value)


@given(data=st.data())
@settings(max_examples=300)
def test_junk_is_an_image_or_a_fault(data: st.DataObject) -> None:
    content = bytearray(GOOD)
    for place in data.draw(st.lists(st.integers(6, len(content) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(6, len(content)))
    with contextlib.suppress(ImageFault):
        pixels = decode_image(bytes(content[:cut]), 5)
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 5)


def test_a_file_on_disk_becomes_the_models_input(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "a.npy", array)
    spec = Preprocessing(6, 4, channels=5)
    np.testing.assert_array_equal(image_tensor(tmp_path / "a.npy", spec), array)
    assert spec.shape == (6, 4, 5)
    assert "expected uint8 [H, W, 2]" in image_tensor(tmp_path / "a.npy", Preprocessing(6, 4, channels=2))


# Bundles


def classifier(channels: int) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights = {
        "kernel": random.normal(0, 0.02, (4, channels, 3, 3)).astype(np.float32),
        "head": random.normal(0, 1, (3, 4)).astype(np.float32),
        "bias": random.normal(0, 1, 3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, channels])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(params=[(1, "png"), (1, "npy"), (5, "npy")], ids=["grey", "grey array", "five channels"])
def shipped(request: pytest.FixtureRequest, tmp_path: Path, seal: Seal) -> tuple[Path, str]:
    """A bundle of images of other channels than RGB, and the suffix of its golden images."""
    channels, suffix = request.param
    folder, golden = tmp_path / "bundle", tmp_path / "bundle" / "golden"
    golden.mkdir(parents=True)
    onnx.save(classifier(channels), folder / "model.onnx")
    spec = Preprocessing(8, 8, channels=channels)
    tensors = []
    for number in range(2):
        path = golden / f"{number:02}.{suffix}"
        if suffix == "png":
            path.write_bytes(png(Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8))))
        else:
            np.save(path, np.random.default_rng(number).integers(0, 256, (20, 30, channels), np.uint8))
        tensors.append(image_tensor(path, spec))
    session = open_session(folder / "model.onnx", {})
    np.save(golden / "tensors.npy", np.stack(tensors))
    np.save(golden / "logits.npy", np.concatenate([session.run(["logits"], {"image": one[None]})[0] for one in tensors]))
    images = [{"file": f"{number:02}.{suffix}", "label": number} for number in range(2)]
    (golden / "golden.json").write_text(json.dumps({"images": images}))
    manifest = {"model": {"file": "model.onnx"}, "classes": ["a", "b", "c"], "session": {}, "preprocessing": spec.to_dict()}
    seal(folder, {"schema": 1, **manifest})
    return folder, suffix


def test_predict_takes_images_of_the_bundles_channels(shipped: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, suffix = shipped
    assert main(["predict", str(folder), str(folder / f"golden/00.{suffix}"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    logits = np.load(folder / "golden/logits.npy")[0]
    assert row["label"] == "abc"[int(logits.argmax())]


def test_check_is_exact(shipped: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(shipped[0]), "--quick", "--json"]) == 0
    golden = json.loads(capsys.readouterr().out)["golden"]
    assert golden["decoders"]["pillow"]["status"] == "exact"
    assert golden["decode"] == {"status": "exact", "max_pixel_difference": 0, "reason": ""}
    assert golden["logits"]["bit_equal"]


def test_arrays_need_no_pillow(shipped: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    bundle = read_bundle(shipped[0])
    found = check_golden(open_session(bundle.path, {}), bundle.golden, bundle.preprocessing)
    assert found["decode"]["status"] == ("exact" if shipped[1] == "npy" else "skipped")


def test_a_model_of_other_channels_than_its_manifest_is_refused(
    shipped: tuple[Path, str], seal: Seal, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, suffix = shipped
    onnx.save(classifier(2), folder / "model.onnx")
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    assert main(["predict", str(folder), str(folder / f"golden/00.{suffix}")]) == ExitCode.ARTEFACT
    assert "got images [H, W, channels] of [8, 8, 2], expected [8, 8, " in capsys.readouterr().err
    bundle = read_bundle(folder)
    with pytest.raises(RunnerError, match=r"golden tensors: got images of .*, the model takes \[8, 8, 2\]"):
        check_golden(open_session(bundle.path, {}), bundle.golden, bundle.preprocessing)


def test_an_image_of_other_channels_is_refused(tmp_path: Path, shipped: tuple[Path, str], capsys: Any) -> None:
    np.save(tmp_path / "seven.npy", np.zeros((9, 9, 7), np.uint8))
    assert main(["predict", str(shipped[0]), str(tmp_path / "seven.npy")]) == ExitCode.DATA
    assert "seven.npy is an array of uint8 [9, 9, 7], expected uint8 [H, W, " in capsys.readouterr().err


@pytest.mark.parametrize("shape", [["N", 8, 8, "K"], ["N", 8, "W", 1]])
def test_a_model_of_any_size_is_refused(tmp_path: Path, shape: list[Any]) -> None:
    model = classifier(1)
    for side, value in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        side.Clear()
        setattr(side, "dim_value" if isinstance(value, int) else "dim_param", value)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RunnerError, match=r"expected tensor\(uint8\) \[N, H, W, K\], all but N fixed"):
        open_session(tmp_path / "model.onnx", {})
