"""PNG without an image library: zlib and numpy alone, for boards that have neither Pillow nor OpenCV.

Grey, RGB and both with alpha, eight bits, not interlaced; the rest is refused in a few words. Transparency lies on white, by
the rule of `decode`. Format: https://www.w3.org/TR/png-3/ (chunks in 5, filters in 9).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from .arrays import MAX_MEGAPIXELS
from .exitcodes import ImageFault

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def decode_png(content: bytes) -> Image:
    """Return the pixels of a PNG: uint8 `[h, w, 3]`.

    Raises:
        ImageFault: it is damaged, or of a kind that this module does not read.
    """
    import numpy as np

    header, packed, others = _chunks(content)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if depth != 8 or colour not in CHANNELS or interlaced or b"tRNS" in others:
        raise ImageFault("is a PNG of another kind than plain eight bits, which takes Pillow")
    if not 0 < width * height <= MAX_MEGAPIXELS * 1e6:
        raise ImageFault(f"has {width}x{height} pixels")
    channels = CHANNELS[colour]
    size = height * (1 + width * channels)
    try:
        data = zlib.decompressobj().decompress(packed, size)
    except zlib.error as fault:
        raise ImageFault(f"cannot be decoded ({fault})") from None
    if len(data) != size:
        raise ImageFault("is truncated")
    lines = np.frombuffer(data, np.uint8).reshape(height, 1 + width * channels)
    pixels = _unfiltered(lines, channels).reshape(height, width, channels)
    alpha = pixels[:, :, -1:].astype(np.uint16) if channels in (2, 4) else None
    tones = pixels[:, :, :3] if channels >= 3 else pixels[:, :, :1].repeat(3, axis=2)
    if alpha is not None:
        tones = ((tones * alpha + (255 - alpha) * 255 + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(tones)


def _chunks(content: bytes) -> tuple[bytes, bytes, set[bytes]]:
    """Return the header, the compressed pixels and the names of all chunks."""
    place, header, packed, names, name = len(SIGNATURE), b"", [], set(), b""
    while place + 12 <= len(content) and name != b"IEND":
        length = int.from_bytes(content[place : place + 4], "big")
        name, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        check = content[place + 8 + length : place + 12 + length]
        if len(check) < 4 or zlib.crc32(name + body) != int.from_bytes(check, "big"):
            raise ImageFault("is truncated or damaged")
        header = body if name == b"IHDR" else header
        packed += [body] if name == b"IDAT" else []
        names.add(name)
        place += 12 + length
    if name != b"IEND" or len(header) != 13:
        raise ImageFault("is truncated")
    return header, b"".join(packed), names


def _unfiltered(lines: Image, step: int) -> Image:
    """Return the bytes of each line before its filter: `[h, w * channels]`."""
    import numpy as np

    result = np.zeros((len(lines), lines.shape[1] - 1), np.uint8)
    above = np.zeros(lines.shape[1] - 1, np.uint8)
    for row, line in enumerate(lines):
        kind, body = int(line[0]), line[1:]
        if kind == 0:
            above = body
        elif kind == 1:
            above = np.add.accumulate(body.reshape(-1, step), axis=0, dtype=np.uint8).ravel()
        elif kind == 2:
            above = body + above
        elif kind in (3, 4):
            above = _one_by_one(kind, body, above, step)
        else:
            raise ImageFault("has a line with an unknown filter")
        result[row] = above
    return result


def _one_by_one(kind: int, body: Image, above: Image, step: int) -> Image:
    """Undo the filters that need the byte on the left: the mean (3) and Paeth's predictor (4)."""
    import numpy as np

    up, got = above.tolist(), body.tolist()
    for place, value in enumerate(got):
        left = got[place - step] if place >= step else 0
        corner = up[place - step] if place >= step else 0
        if kind == 3:
            guess = (left + up[place]) // 2
        else:
            near = left + up[place] - corner
            far = (abs(near - left), abs(near - up[place]), abs(near - corner))
            guess = (left, up[place], corner)[far.index(min(far))]
        got[place] = (value + guess) & 0xFF
    return np.array(got, np.uint8)
