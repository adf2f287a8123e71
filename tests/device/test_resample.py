"""The law of resampling: the same bytes with Pillow and without it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetune.device.preprocess import Preprocessing, fit
from edgetune.device.resample import resample

sides = st.integers(1, 40)
methods = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    # Black and white beside noise: overshoot at hard edges is where rounding and clipping show.
    values = np.random.default_rng(seed).integers(-128, 384, (height, width, channels))
    return np.clip(values, 0, 255).astype(np.uint8)


@st.composite
def boxes(draw: st.DrawFn, height: int, width: int) -> tuple[float, float, float, float]:
    def span(size: int) -> tuple[float, float]:
        cuts = st.one_of(st.integers(0, size).map(float), st.floats(0, size))
        first, second = sorted((draw(cuts), draw(cuts)))
        return (first, second) if second - first >= 0.05 else (0.0, float(size))

    (left, right), (top, bottom) = span(width), span(height)
    return left, top, right, bottom


def without_pillow(
    image: np.ndarray, out_h: int, out_w: int, box: tuple[float, float, float, float], method: str
) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "PIL", None)
        return resample(image, out_h, out_w, box, method)


@settings(max_examples=400)
@given(data=st.data(), height=sides, width=sides, out_h=sides, out_w=sides, method=st.sampled_from(sorted(methods)))
def test_the_bytes_are_the_same_without_pillow(
    data: st.DataObject, height: int, width: int, out_h: int, out_w: int, method: str
) -> None:
    image = noise(height, width, data.draw(st.integers(0, 9)), data.draw(st.integers(1, 5)))
    box = data.draw(boxes(height, width))
    expected = resample(image, out_h, out_w, box, method)
    np.testing.assert_array_equal(without_pillow(image, out_h, out_w, box, method), expected)


@settings(max_examples=200)
@given(data=st.data(), size=sides, across=sides, out_size=sides, method=st.sampled_from(sorted(methods)), turn=st.booleans())
def test_along_one_axis_it_is_pillows_own_resize(
    data: st.DataObject, size: int, across: int, out_size: int, method: str, turn: bool
) -> None:
    # Along both axes Pillow's versions differ in the order of the passes; see the module's docstring.
    image = noise(size, across, data.draw(st.integers(0, 9)))
    _, top, _, bottom = data.draw(boxes(size, across))
    box, out_h, out_w = (0.0, top, float(across), bottom), out_size, across
    if turn:
        image, box, out_h, out_w = (
            np.ascontiguousarray(image.transpose(1, 0, 2)),
            (top, 0.0, bottom, float(across)),
            across,
            out_size,
        )
    expected = np.asarray(Image.fromarray(image).resize((out_w, out_h), methods[method], box=box))
    difference = np.abs(resample(image, out_h, out_w, box, method).astype(int) - expected)
    # Rows are cut off before Pillow sees them: a weight may be rounded the other way, once in a great while.
    assert difference.max() <= (0 if turn else 1)


@pytest.mark.parametrize("method", sorted(methods))
@pytest.mark.parametrize("size", [(480, 640), (61, 1000), (1000, 7), (224, 224)])
def test_the_bytes_are_the_same_without_pillow_on_photographs(size: tuple[int, int], method: str) -> None:
    image = noise(*size)
    box = (0.3, 0.7, size[1] - 0.3, size[0] - 0.7)
    expected = resample(image, 112, 96, box, method)
    np.testing.assert_array_equal(without_pillow(image, 112, 96, box, method), expected)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_each_channel_is_resampled_by_itself(channels: int) -> None:
    # Pillow would take the last of two or four for an alpha, and weigh the others by it.
    image = noise(40, 30, channels=channels)
    image[:20, :, -1] = 0
    box = (0.3, 0.0, 30.0, 40.0)
    as_rgb = [resample(np.repeat(image[..., [k]], 3, axis=2), 13, 9, box, "bicubic")[..., 0] for k in range(channels)]
    np.testing.assert_array_equal(resample(image, 13, 9, box, "bicubic"), np.stack(as_rgb, axis=2))


def test_the_order_of_the_passes_is_fixed() -> None:
    # Pillow 13 gives 97 and 62 where Pillow 10 gives 107 and 73.
    image = np.array([[[255, 198, 133], [10, 29, 0]], [[0, 0, 0], [255, 204, 255]]], dtype=np.uint8)
    assert resample(image, 1, 2, (0, 0, 1, 2), "bicubic").tolist() == [[[128, 107, 73], [129, 103, 79]]]


@settings(max_examples=100)
@given(height=sides, width=sides, spec=st.builds(
    Preprocessing,
    height=sides,
    width=sides,
    resize=st.sampled_from(["crop", "pad", "squash"]),
    interpolation=st.sampled_from(sorted(methods)),
    crop_fraction=st.floats(0.2, 1.0),
    channels=st.integers(1, 5),
))  # fmt: skip
def test_fit_always_gives_a_new_writable_image_of_the_size(height: int, width: int, spec: Preprocessing) -> None:
    image = noise(height, width, channels=spec.channels)
    image.setflags(write=False)
    fitted = fit(image, spec)
    assert fitted.shape == spec.shape
    assert fitted.dtype == np.uint8
    assert fitted.flags.writeable
    assert fitted.flags.c_contiguous
    assert not np.shares_memory(fitted, image)


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_fit_leaves_an_image_of_the_right_size_as_it_is(resize: str) -> None:
    image = noise(31, 17)
    np.testing.assert_array_equal(fit(image, Preprocessing(31, 17, resize=resize)), image)


def test_crop_takes_the_centre() -> None:
    image = np.zeros((10, 30, 3), dtype=np.uint8)
    image[:, 10:20] = 200
    assert (fit(image, Preprocessing(10, 10)) == 200).all()


def test_crop_fraction_shrinks_the_box_on_all_sides() -> None:
    image = noise(20, 20)
    np.testing.assert_array_equal(fit(image, Preprocessing(10, 10, crop_fraction=0.5)), image[5:15, 5:15])


@pytest.mark.parametrize(
    ("shape", "rows", "columns"), [((10, 40), (3, 5), (0, 8)), ((40, 10), (0, 8), (3, 5)), ((1, 300), (3, 4), (0, 8))]
)
def test_pad_keeps_all_of_the_image_centred_on_white(
    shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    fitted = fit(np.zeros((*shape, 3), dtype=np.uint8), Preprocessing(8, 8, resize="pad"))
    inside = np.zeros((8, 8), dtype=bool)
    inside[slice(*rows), slice(*columns)] = True
    assert (fitted[inside] == 0).all()
    assert (fitted[~inside] == 255).all()


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)])
def test_fit_refuses_what_is_no_image(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        fit(bad, Preprocessing(4, 4))


def test_fit_refuses_an_image_of_other_channels() -> None:
    with pytest.raises(ValueError, match=r"got uint8 \[4, 4, 3\], expected uint8 \[h, w, 1\]"):
        fit(noise(4, 4), Preprocessing(4, 4, channels=1))


def test_a_box_outside_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a part of 5x4 pixels"):
        resample(noise(4, 5), 2, 2, (0, 0, 6, 4), "bicubic")
