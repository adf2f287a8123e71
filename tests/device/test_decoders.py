"""Every way of decoding that a machine has, tried on the golden images; PNG without a library."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgetune.device.decode import ImageFault, decode_image
from edgetune.device.decoders import _opencv
from edgetune.device.golden import check_golden
from edgetune.device.png import decode_png
from edgetune.device.preprocess import Preprocessing
from edgetune.device.session import open_session

SPEC = Preprocessing(height=8, width=8)


def png(mode: str, side: int = 9, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    shape = (side, side + 2, len(mode)) if len(mode) > 1 else (side, side + 2)
    # Smooth pictures make Pillow choose filters, noise does not.
    values = np.cumsum(rng.integers(0, 9, shape), axis=1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values, mode).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@given(st.sampled_from(("L", "RGB", "LA", "RGBA")), st.integers(1, 20), st.integers(0, 5))
def test_our_png_is_pillows(mode: str, side: int, seed: int) -> None:
    content = png(mode, side, seed)
    np.testing.assert_array_equal(decode_png(content), decode_image(content))


@given(st.integers(0, 400))
def test_a_cut_png_is_refused(cut: int) -> None:
    content = png("RGB")
    with pytest.raises(ImageFault):
        decode_png(content[: min(cut, len(content) - 1)])


def test_a_palette_takes_pillow() -> None:
    stream = io.BytesIO()
    Image.new("P", (3, 3)).save(stream, "PNG")
    with pytest.raises(ImageFault, match="takes Pillow"):
        decode_png(stream.getvalue())


def test_each_way_is_reported_as_pixels_and_decisions(bundle: Path) -> None:
    session = open_session(bundle / "model.onnx", {})
    found = check_golden(session, bundle / "golden", SPEC)["decoders"]
    for way in ("pillow", "numpy"):
        assert (found[way]["status"], found[way]["max_pixel_difference"], found[way]["decisions_changed"]) == ("exact", 0, 0)
    assert found["pillow-resize"]["max_pixel_difference"] <= 1
    assert found["pillow-resize"]["images"] == 3


def test_opencv_is_tried_where_it_is_installed(bundle: Path) -> None:
    found = check_golden(open_session(bundle / "model.onnx", {}), bundle / "golden", SPEC)["decoders"]
    opencv, resized = found["opencv"], found["opencv-resize"]
    assert (opencv["status"], opencv["images"], opencv["max_pixel_difference"]) == ("exact", 3, 0)
    # It resizes from whole pixels by its own rule: other pixels, and it is said how far apart.
    assert (resized["status"], resized["images"]) == ("different", 3)
    assert resized["max_pixel_difference"] > 0


@pytest.mark.parametrize(("channels", "most"), [(1, 8), (3, 3)])
def test_opencv_reads_a_photograph_as_pillow_does_but_for_rounding(channels: int, most: int) -> None:
    """For grey it takes the luminance in the file, and Pillow that of the colours, which were cut to 0 to 255 before."""
    generator = np.random.default_rng(0)
    smooth = np.kron(generator.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(smooth).save(stream, "JPEG", quality=95)
    theirs, ours = _opencv(stream.getvalue(), channels), decode_image(stream.getvalue(), channels)
    assert theirs.shape == ours.shape == (48, 64, channels)
    assert np.abs(theirs.astype(int) - ours).max() <= most
    with pytest.raises(ImageFault, match="not decoded by OpenCV"):
        _opencv(b"no image", channels)


def test_other_tensors_that_change_decisions_are_counted(bundle: Path) -> None:
    golden = bundle / "golden"
    tensors = np.load(golden / "tensors.npy")
    session = open_session(bundle / "model.onnx", {})
    np.save(golden / "tensors.npy", np.full_like(tensors, 255) - tensors)
    found = check_golden(session, golden, SPEC)["decoders"]["pillow"]
    before, after = (
        np.concatenate([session.run(["logits"], {"image": row[None]})[0] for row in rows]).argmax(1)
        for rows in (tensors, 255 - tensors)
    )
    assert found["status"] == "different"
    assert found["max_pixel_difference"] > 100
    assert found["decisions_changed"] == int((before != after).sum())


def test_what_is_not_there_is_skipped_with_a_reason(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cv2", "PIL"):
        monkeypatch.setitem(sys.modules, name, None)
    found = check_golden(open_session(bundle / "model.onnx", {}), bundle / "golden", SPEC)["decoders"]
    assert {way: one["status"] for way, one in found.items()} == {
        "pillow": "skipped",
        "pillow-resize": "skipped",
        "opencv": "skipped",
        "opencv-resize": "skipped",
        "numpy": "exact",
    }
    assert "pip install pillow" in found["pillow"]["reason"]
    assert "cv2" in found["opencv"]["reason"]
    assert found["opencv"]["decisions_changed"] is None
