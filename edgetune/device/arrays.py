"""Images as .npy files: of cameras that see other channels than red, green and blue.

The format is numpy's own, versions 1 and 2. Its header is checked before anything is made of the bytes behind it: a header that
promises more than there is costs no memory, and objects are never unpickled.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from .exitcodes import ImageFault

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]

__all__ = ["HEADER_BYTES", "MAGIC", "MAX_MEGAPIXELS", "array_size", "decode_array"]

MAGIC = b"\x93NUMPY"
"""What every .npy file begins with."""
HEADER_BYTES = 16 * 1024
"""From the beginning of a file: more than the longest header that numpy reads."""
MAX_MEGAPIXELS = 100


def decode_array(content: bytes, channels: int) -> Image:
    """Return the picture in an .npy file.

    Args:
        content: the whole file.
        channels: how many the picture must have.

    Returns:
        uint8 `[h, w, channels]`; it may be read-only, or not contiguous.

    Raises:
        ImageFault: the file is damaged, or its array is not uint8 `[h, w, channels]` (of one channel also `[h, w]`), or has
            no pixels or too many.
    """
    import numpy as np

    shape, fortran, kind, start = _header(content)
    expected = f"uint8 [H, W, {channels}]" + (" or [H, W]" if channels == 1 else "")
    whole = (*shape, 1) if channels == 1 and len(shape) == 2 else shape
    if kind != np.uint8 or len(whole) != 3 or whole[2] != channels:
        raise ImageFault(f"is an array of {kind} {list(shape)}, expected {expected}")
    height, width = whole[:2]
    if height < 1 or width < 1:
        raise ImageFault(f"has {width}x{height} pixels")
    if height * width > MAX_MEGAPIXELS * 1_000_000:
        raise ImageFault(f"has {height * width / 1e6:.0f} megapixels, more than the cap of {MAX_MEGAPIXELS}")
    size, found = height * width * channels, len(content) - start
    if found < size:
        raise ImageFault(f"is truncated ({found} of {size} bytes of pixels)")
    if found > size:
        raise ImageFault(f"has {found - size} bytes behind its array; expected one picture")
    return np.frombuffer(content, np.uint8, size, start).reshape(whole, order="F" if fortran else "C")


def array_size(beginning: bytes) -> tuple[int, int]:
    """Return the height and width in pixels of the picture in an .npy file.

    Args:
        beginning: the file's first `HEADER_BYTES` bytes.

    Raises:
        ImageFault: the header is damaged, or not that of a picture.
    """
    shape = _header(beginning)[0]
    if len(shape) not in (2, 3):
        raise ImageFault(f"is an array {list(shape)}, expected [H, W, channels]")
    return shape[0], shape[1]


def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Return the shape, whether the first axis is the innermost, the type, and where the data begins."""
    from numpy.lib import format as npy

    stream = BytesIO(content)
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its version is {version[0]}.{version[1]}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = read(stream)
    except Exception as fault:
        # The header is a Python literal: junk in it trips over anything from SyntaxError to RecursionError.
        reason = " ".join(str(fault).split())[:120] or type(fault).__name__
        raise ImageFault(f"is an .npy file with a header that cannot be read ({reason})") from None
    return shape, fortran, kind, stream.tell()
