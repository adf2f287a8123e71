"""PNG files whose bytes depend on nothing but their pixels."""

from __future__ import annotations

import struct
import zlib

__all__ = ["stored_png"]

LARGEST_BLOCK = 0xFFFF
COLOUR_TYPES = {1: 0, 3: 2}
"""PNG's number for grey and for RGB."""


def stored_png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """Return an 8-bit PNG file of row-major pixels, grey or RGB.

    The data is stored, not compressed, so that the bytes do not depend on which zlib there is.
    """
    stride = width * channels
    rows = b"".join(b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height))
    stored = b"\x78\x01" + b"".join(_blocks(rows)) + struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stored), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _blocks(data: bytes) -> list[bytes]:
    """Return data as the stored blocks of a deflate stream (RFC 1951, 3.2.4)."""
    blocks = []
    for start in range(0, len(data), LARGEST_BLOCK):
        part = data[start : start + LARGEST_BLOCK]
        final = start + LARGEST_BLOCK >= len(data)
        blocks.append(bytes([final]) + struct.pack("<HH", len(part), len(part) ^ 0xFFFF) + part)
    return blocks
