"""Every kind of picture that has a rule, every kind that is refused, and junk."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgetune.device.decode import FORMATS, ImageFault, decode_image, decode_image_noting

RGB = np.random.default_rng(1).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def encoded(picture: Image.Image, format_: str, **options: Any) -> bytes:
    stream = BytesIO()
    picture.save(stream, format_, **options)
    return stream.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Return a PNG made by hand: what Pillow itself does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_rgb_comes_back_as_it_was(format_: str) -> None:
    pixels, notes = decode_image_noting(encoded(Image.fromarray(RGB), format_))
    np.testing.assert_array_equal(pixels, RGB)
    assert pixels.flags.c_contiguous
    assert notes == ()


def test_lossy_formats_decode_as_pillow_does() -> None:
    for format_ in ("JPEG", "WEBP"):
        content = encoded(Image.fromarray(RGB), format_)
        np.testing.assert_array_equal(decode_image(content), np.asarray(Image.open(BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(RGB), format_, exif=exif, **({"lossless": True} if format_ == "WEBP" else {}))
    picture = Image.open(BytesIO(content))
    pixels, notes = decode_image_noting(content)
    np.testing.assert_array_equal(pixels, np.asarray(ImageOps.exif_transpose(picture).convert("RGB")))
    assert pixels.shape == ((5, 7, 3) if orientation >= 5 else (7, 5, 3))
    assert notes == (() if orientation == 1 else (f"EXIF orientation {orientation} applied",))


def test_unreadable_exif_is_left_aside() -> None:
    content = encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0junk that is no directory")
    pixels, notes = decode_image_noting(content)
    np.testing.assert_array_equal(pixels, RGB)
    assert set(notes) <= {"unreadable EXIF ignored"}


def test_alpha_lies_on_white_to_the_last_level() -> None:
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([colour, 255 - colour, np.full_like(colour, 77), alpha], axis=2).astype(np.uint8)
    pixels, notes = decode_image_noting(encoded(Image.fromarray(rgba), "PNG"))
    exact = (rgba[:, :, :3].astype(float) * alpha[:, :, None] + 255 * (255 - alpha[:, :, None])) / 255
    np.testing.assert_array_equal(pixels, np.rint(exact).astype(np.uint8))
    assert notes == ("alpha composited on white",)


def test_opaque_alpha_is_dropped_and_noted() -> None:
    pixels, notes = decode_image_noting(encoded(Image.fromarray(RGB).convert("RGBA"), "PNG"))
    np.testing.assert_array_equal(pixels, RGB)
    assert notes == ("opaque alpha dropped",)


def test_grey_with_alpha_lies_on_white() -> None:
    content = encoded(Image.merge("LA", [Image.new("L", (2, 2), 10), Image.new("L", (2, 2), 0)]), "PNG")
    assert (decode_image(content) == 255).all()


@pytest.mark.parametrize("format_", ["PNG", "GIF", "TIFF"])
def test_palettes_are_expanded(format_: str) -> None:
    picture = Image.fromarray(RGB).quantize(8)
    pixels, notes = decode_image_noting(encoded(picture, format_))
    np.testing.assert_array_equal(pixels, np.asarray(picture.convert("RGB")))
    assert "palette expanded" in notes


@pytest.mark.parametrize("format_", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(format_: str) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([9, 9, 9, 200, 0, 0])
    picture.putpixel((0, 0), 0)
    pixels, notes = decode_image_noting(encoded(picture, format_, transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == [200, 0, 0]
    assert notes == ("palette expanded", "alpha composited on white")


def test_a_palette_with_an_alpha_for_each_entry() -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([0, 0, 0, 100, 100, 100])
    picture.putpixel((1, 0), 1)
    assert decode_image(encoded(picture, "PNG", transparency=bytes([128, 255])))[0, :, 0].tolist() == [127, 100]


def test_a_transparent_colour_of_rgb_is_white() -> None:
    picture = Image.new("RGB", (2, 1), (1, 2, 3))
    picture.putpixel((1, 0), (1, 2, 4))
    pixels, notes = decode_image_noting(encoded(picture, "PNG", transparency=(1, 2, 3)))
    assert pixels[0].tolist() == [[255, 255, 255], [1, 2, 4]]
    assert notes == ("alpha composited on white",)


@pytest.mark.parametrize(("depth", "row"), [(1, 0b01000000), (2, 0b00110000), (4, 0x0F)])
def test_a_transparent_grey_of_few_bits_is_white(depth: int, row: int) -> None:
    # The two pixels are black and white; black is transparent.
    black = chunk(b"tRNS", struct.pack(">H", 0))
    assert decode_image(png(2, 1, depth, 0, bytes([0, row]), black))[0, :, 0].tolist() == [255, 255]
    white = chunk(b"tRNS", struct.pack(">H", 2**depth - 1))
    assert decode_image(png(2, 1, depth, 0, bytes([0, row]), white))[0, :, 0].tolist() == [0, 255]
    assert decode_image(png(2, 1, depth, 0, bytes([0, row])))[0, :, 0].tolist() == [0, 255]


def test_sixteen_bit_grey_is_rounded_to_eight() -> None:
    values = np.array([[0, 128, 129, 257, 385, 386, 32768, 65407, 65535]], dtype=np.uint16)
    for format_ in ("PNG", "TIFF"):
        pixels, notes = decode_image_noting(encoded(Image.fromarray(values), format_))
        assert pixels[0, :, 1].tolist() == np.rint(values[0] / 257).astype(int).tolist()
        assert notes == ("16-bit grey reduced to 8 bits",)


def test_sixteen_bit_ppm_and_colour_png() -> None:
    grey = b"P5 2 1 65535\n" + struct.pack(">HH", 0, 65535)
    assert decode_image(grey)[0, :, 0].tolist() == [0, 255]
    colour, notes = decode_image_noting(png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x1234, 0xFF00, 0)))
    assert colour.tolist() == [[[0x12, 0xFF, 0]]]
    assert notes == ("16-bit colour reduced to 8 bits",)


def test_transparent_sixteen_bit_grey_is_white() -> None:
    content = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 5, 1000), chunk(b"tRNS", struct.pack(">H", 5)))
    assert decode_image(content)[0, :, 0].tolist() == [255, 4]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_is_repeated(mode: str) -> None:
    picture = Image.fromarray(RGB).convert(mode)
    pixels, notes = decode_image_noting(encoded(picture, "PNG"))
    np.testing.assert_array_equal(pixels, np.asarray(picture.convert("RGB")))
    assert notes == ("grey repeated in three channels",)


@pytest.mark.parametrize(("mode", "format_"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF")])
def test_print_colours_are_converted_as_pillow_does(mode: str, format_: str) -> None:
    content = encoded(Image.fromarray(RGB).convert(mode), format_)
    pixels, notes = decode_image_noting(content)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(BytesIO(content)).convert("RGB")))
    assert notes == (f"{mode} converted",)


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_pixels_without_a_rule_are_refused(mode: str) -> None:
    picture = Image.new(mode, (3, 3), 70_000 if mode == "I" else 0)
    with pytest.raises(ImageFault, match="no rule"):
        decode_image(encoded(picture, "TIFF"))


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(format_: str) -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    with pytest.raises(ImageFault, match="has 2 frames or pages; expected one picture"):
        decode_image(encoded(frames[0], format_, save_all=True, append_images=frames[1:]))


def test_of_a_phones_many_pictures_the_first_is_taken() -> None:
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    pixels, notes = decode_image_noting(encoded(first, "MPO", save_all=True, append_images=[second]))
    assert (pixels == 255).all()
    assert notes == ("first of several pictures taken",)


@pytest.mark.parametrize("format_", [name for name in FORMATS if name != "GIF"])
def test_a_truncated_file_is_refused(format_: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format_)
    with pytest.raises(ImageFault, match=r"is truncated|cannot be decoded|is not a whole image"):
        decode_image(content[: len(content) * 2 // 3])


def test_a_truncated_file_is_refused_even_if_someone_told_pillow_to_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    content = encoded(Image.fromarray(RGB).resize((64, 64)), "JPEG")
    with pytest.raises(ImageFault, match=r"^is truncated"):
        decode_image(content[:-20])


@pytest.mark.parametrize("side", [10_001, 20_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    content = png(side, side, 1, 0, b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageFault, match=r"more .*than the cap of 100"):
            decode_image(content)


def test_a_large_picture_below_the_cap_passes_without_a_warning() -> None:
    # Pillow itself warns from 89 megapixels on.
    assert decode_image(encoded(Image.new("1", (9_500, 9_500)), "PNG")).shape == (9_500, 9_500, 3)


def test_many_threads_decode_at_once_and_leave_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    content = encoded(Image.fromarray(RGB), "PNG")
    faults: list[bool] = []
    work = [
        threading.Thread(target=lambda: faults.extend(not np.array_equal(decode_image(content), RGB) for _ in range(20)))
        for _ in range(8)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert faults == [False] * 160
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello", "is not a whole image of a known format"),
        (b"P6 0 0 255\n", ""),
        (encoded(Image.new("RGB", (16, 16)), "ICO"), "is not a whole image of a known format"),
    ],
)
def test_what_is_no_image_says_so(content: bytes, reason: str) -> None:
    with pytest.raises(ImageFault) as caught:
        decode_image(content)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


SEEDS = [encoded(Image.fromarray(RGB), name) for name in FORMATS] + [
    encoded(Image.fromarray(RGB).quantize(4), "PNG", transparency=0),
    encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF", compression="tiff_lzw"),
    encoded(Image.fromarray(RGB), "TIFF", compression="jpeg"),
    encoded(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
]


@settings(max_examples=600)
@example(seed=b"\x89PNG\r\n\x1a\n", edits=[], cut=8)
@given(
    seed=st.one_of(st.sampled_from(SEEDS), st.binary(max_size=64)),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 3000),
)
def test_any_bytes_are_an_image_or_a_fault(seed: bytes, edits: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(seed)
    for place, value in edits:
        if content:
            content[place % len(content)] = value
    fault = None
    pixels, notes = RGB, ()
    try:
        pixels, notes = decode_image_noting(bytes(content[:cut]))
    except ImageFault as raised:
        fault = raised
    assert fault is None or (str(fault) and "\n" not in str(fault) and fault.__suppress_context__)
    assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
    assert all(isinstance(note, str) for note in notes)
