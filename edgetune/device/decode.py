"""From the bytes of an image file to pixels, by one stated rule, or a fault in a few words.

The rule: JPEG, PNG, BMP, WebP, TIFF, PPM and GIF, decided by content and not by name; at most 100 megapixels; whole files
only; one picture per file (of a phone's multi-picture JPEG the first, which is the photograph). EXIF's orientation is applied.
Transparency lies on white: `round((colour * alpha + 255 * (255 - alpha)) / 255)`. Grey of 16 bits becomes
`round(value / 257)`. Palettes are expanded; CMYK and YCbCr are converted as Pillow does it, without colour profiles.
Floating-point, 32-bit, LAB and HSV pixels have no such rule and are refused.

That gives RGB. One channel is its luma by ITU-R BT.601, in whole numbers as Pillow computes it:
`(19595 R + 38470 G + 7471 B + 32768) // 65536`; grey stays what it was. Other numbers of channels are read from .npy files
alone (see `arrays`), which are taken for three channels and for one, too.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .arrays import MAGIC, MAX_MEGAPIXELS, decode_array
from .exitcodes import ExitCode, ImageFault, RunnerError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]

__all__ = ["FORMATS", "MAX_MEGAPIXELS", "ImageFault", "decode_image", "decode_image_noting"]

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
ORIENTATION_TAG = 0x0112
SHALLOW_GREY = {"1": 1, "L;2": 3, "L;4": 15}
"""Raw mode of a PNG of less than eight bits → its largest grey value."""
LUMA = (19595, 38470, 7471)
"""0.299, 0.587 and 0.114 (ITU-R BT.601) times 65536; they add up to that."""
GREY_REPEATED = "grey repeated in three channels"

_quiet_lock = threading.Lock()


def decode_image(content: bytes, channels: int = 3) -> Image:
    """Return the pixels of an encoded image.

    Args:
        content: the whole file.
        channels: 3 for RGB, 1 for grey; others are those of an .npy file.

    Returns:
        uint8 `[h, w, channels]`, contiguous; it may be read-only.

    Raises:
        ImageFault: the bytes are not an image that the rule of this module takes.
        RunnerError: TARGET: Pillow is not installed.
    """
    return decode_image_noting(content, channels)[0]


def decode_image_noting(content: bytes, channels: int = 3) -> tuple[Image, tuple[str, ...]]:
    """Return the pixels of an encoded image and the conversions that were needed, in a few words each.

    Args:
        content: the whole file.
        channels: as of `decode_image`.

    Returns:
        uint8 `[h, w, channels]` as of `decode_image`, and notes such as `"EXIF orientation 6 applied"`.

    Raises:
        ImageFault: the bytes are not an image that the rule of this module takes.
        RunnerError: TARGET: Pillow is not installed.
    """
    import numpy as np

    if content.startswith(MAGIC):
        with _quietly():
            return np.ascontiguousarray(decode_array(content, channels)), ()
    if channels not in (1, 3):
        expected = f"expected one with an array uint8 [H, W, {channels}]"
        raise ImageFault(f"is not an .npy file, {expected}" if content else "is empty")
    pixels, notes = _picture(content)
    if channels == 1:
        pixels, notes = _luma(pixels), _grey_notes(pixels, notes)
    return np.ascontiguousarray(pixels), notes


def _picture(content: bytes) -> tuple[Image, tuple[str, ...]]:
    """Return uint8 `[h, w, 3]` and the notes on it."""
    try:
        from PIL import ImageFile, UnidentifiedImageError
    except ImportError as missing:
        raise RunnerError(
            f"images cannot be decoded here: {missing.name} is not installed; try: pip install pillow", ExitCode.TARGET
        ) from None
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        return _decoded(content)
    except ImageFault:
        raise
    except UnidentifiedImageError:
        problem = f"is not a whole image of a known format ({', '.join(FORMATS)})" if content else "is empty"
        raise ImageFault(problem) from None
    except Exception as fault:
        # Decoders meet junk with whatever their parsing trips over: struct.error, KeyError, ZeroDivisionError, SyntaxError…
        raise ImageFault(_reason(fault)) from None


def _luma(pixels: Image) -> Image:
    """Return uint8 `[h, w, 1]`, the luma of RGB by the rule of this module."""
    import numpy as np

    total = np.full(pixels.shape[:2], 1 << 15, np.uint32)
    for channel, weight in enumerate(LUMA):
        # The type is said: numpy 1 would multiply bytes by a number of 16 bits in 16 bits.
        total += np.multiply(pixels[:, :, channel], weight, dtype=np.uint32)
    return (total >> 16).astype(np.uint8)[:, :, None]


def _grey_notes(pixels: Image, notes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the notes on RGB pixels as they are for grey ones: what mattered is whether there were colours."""
    if GREY_REPEATED in notes:
        return tuple(note for note in notes if note != GREY_REPEATED)
    coloured = (pixels[:, :, 0] != pixels[:, :, 1]).any() or (pixels[:, :, 1] != pixels[:, :, 2]).any()
    return (*notes, "colours turned into grey") if coloured else notes


def _reason(fault: Exception) -> str:
    text = " ".join(str(fault).split())[:120] or type(fault).__name__
    for sign in ("image file is truncated", "Truncated File Read"):
        if text.startswith(sign):
            detail = text[len(sign) :].strip(" ()")
            return f"is truncated ({detail})" if detail else "is truncated"
    return f"cannot be decoded ({text})"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep Pillow's warnings of odd metadata, its own bomb warning included, from the user.

    The filters of warnings belong to the process: one thread at a time. Pixels are decoded outside, so threads still help.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decoded(content: bytes) -> tuple[Image, tuple[str, ...]]:
    from PIL import Image as Pillow

    notes: list[str] = []
    with _quietly():
        try:
            picture: Any = Pillow.open(BytesIO(content), formats=[*FORMATS])
        except Pillow.DecompressionBombError:
            raise ImageFault(f"has more megapixels than the cap of {MAX_MEGAPIXELS}") from None
        _check_header(picture, notes)
        rawmode = _rawmode(picture)
        turned = 1
        if picture.format == "TIFF":
            # Newer Pillows turn a TIFF as they load it and take the tag out; older ones leave both to the caller.
            turned = picture.tag_v2.get(ORIENTATION_TAG, 1)
            picture.load()
    picture.load()
    orientation = _orientation(picture, notes)
    pixels = _rgb(picture, rawmode, notes)
    notes += [f"EXIF orientation {applied} applied" for applied in {orientation, turned} & set(range(2, 9))]
    return _turned(pixels, orientation), tuple(notes)


def _check_header(picture: Any, notes: list[str]) -> None:
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageFault(f"has {width}x{height} pixels")
    megapixels = width * height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise ImageFault(f"has {megapixels:.0f} megapixels, more than the cap of {MAX_MEGAPIXELS}")
    frames = getattr(picture, "n_frames", 1)
    if picture.format == "MPO":
        notes.append("first of several pictures taken")
    elif frames > 1:
        raise ImageFault(f"has {frames} frames or pages; expected one picture")


def _rawmode(picture: Any) -> str:
    """Return how the pixels lie in the file, such as `L;4`, if the format says so; to be asked before loading."""
    arguments = picture.tile[0][3] if picture.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _orientation(picture: Any, notes: list[str]) -> int:
    """Return EXIF's orientation, 1 where there is none. XMP's is not read: not every Pillow knows it."""
    from PIL import Image as Pillow

    if picture.format == "TIFF":
        value = picture.tag_v2.get(ORIENTATION_TAG, 1)
    else:
        exif = Pillow.Exif()
        try:
            with _quietly():
                exif.load(picture.info.get("exif", b""))
                value = exif.get(ORIENTATION_TAG, 1)
        except Exception:
            # As in decoding: any error may come out of junk. The pixels are whole, so the picture is taken.
            notes.append("unreadable EXIF ignored")
            return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(pixels: Image, orientation: int) -> Image:
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _rgb(picture: Any, rawmode: str, notes: list[str]) -> Image:
    """Return the pixels of a loaded picture as uint8 `[h, w, 3]`, by the rule of this module."""
    import numpy as np

    mode, key = picture.mode, picture.info.get("transparency")
    if ";16" in rawmode and mode in ("RGB", "RGBA", "LA", "CMYK"):
        notes.append("16-bit colour reduced to 8 bits")
    if mode.startswith("I;16") or (mode == "I" and picture.format in ("PNG", "PPM")):
        values = np.asarray(picture)
        notes.append("16-bit grey reduced to 8 bits")
        return _grey(_eight_bits(values), None if key is None else values == key, notes)
    if mode in ("1", "L"):
        values = np.asarray(picture.convert("L"))
        notes.append(GREY_REPEATED)
        # Pillow widens shallow grey to eight bits, but not the grey that stands for transparent.
        return _grey(values, None if key is None else values == key * 255 // SHALLOW_GREY.get(rawmode, 255), notes)
    if mode == "RGB":
        pixels = np.asarray(picture)
        return pixels if key is None else _without(pixels, (pixels == np.asarray(key)).all(axis=2), notes)
    if mode in ("P", "PA"):
        notes.append("palette expanded")
    if mode in ("LA", "PA", "RGBA", "RGBa") or (mode == "P" and (key is not None or picture.palette.mode == "RGBA")):
        pixels = np.asarray(picture.convert("RGBA"))
        return _on_white(pixels[:, :, :3], pixels[:, :, 3], notes)
    if mode in ("CMYK", "YCbCr"):
        notes.append(f"{mode} converted")
    elif mode not in ("P", "RGBX"):
        raise ImageFault(f"has pixels of the kind {mode}, for which there is no rule")
    return np.asarray(picture.convert("RGB"))


def _eight_bits(values: npt.NDArray[Any]) -> Image:
    """Return 16-bit values as `round(value / 257)`: 0 stays black, 65535 stays white."""
    import numpy as np

    if int(values.min()) < 0 or int(values.max()) > 0xFFFF:
        raise ImageFault("has 32-bit pixels, for which there is no rule")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _grey(values: Image, clear: npt.NDArray[np.bool_] | None, notes: list[str]) -> Image:
    import numpy as np

    pixels = np.repeat(values[:, :, None], 3, axis=2)
    return pixels if clear is None else _without(pixels, clear, notes)


def _without(pixels: Image, clear: npt.NDArray[np.bool_], notes: list[str]) -> Image:
    """Return the pixels with those that are wholly transparent made white."""
    import numpy as np

    notes.append("alpha composited on white")
    return np.where(clear[:, :, None], np.uint8(255), pixels)


def _on_white(colour: Image, alpha: Image, notes: list[str]) -> Image:
    """Return `round((colour * alpha + 255 * (255 - alpha)) / 255)`; there are no ties, 255 being odd."""
    import numpy as np

    if alpha.min() == 255:
        notes.append("opaque alpha dropped")
        return colour
    notes.append("alpha composited on white")
    alpha = alpha[:, :, None].astype(np.uint16)
    # At most 255 * 255 + 127: it fits 16 bits.
    return ((colour * alpha + (255 - alpha) * 255 + 127) // 255).astype(np.uint8)
