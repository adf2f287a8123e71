"""Resizing with antialiasing: the same bytes with every Pillow, and without one.

Pillow resamples 8-bit images in fixed point: along each axis, an output pixel is the sum of source pixels weighted by a filter
that is stretched when the image shrinks. The weights are computed in double precision, normalised, and rounded to 22 bits; each
pass rounds to 8 bits. Because of that rounding the order of the passes shows in the result, and it is not the same in all
versions of Pillow (13 starts with the height where that shrinks much more, 10 never does). So the order is fixed here, width
first, by asking Pillow for one axis at a time (and, but for RGB, for one channel at a time: Pillow takes four channels for
colours with an alpha, and weighs them by it); `_along_width` and `_along_height` are the same sums for boards without Pillow.

(Pillow's own source is `src/libImaging/Resample.c`. A compiler that fuses multiplications into additions may round a weight
differently on another architecture; a pixel then differs by one level at most.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]
    Box = tuple[float, float, float, float]

INTERPOLATIONS = ("bicubic", "bilinear")
RADIUS = {"bicubic": 2.0, "bilinear": 1.0}
"""Of the filter, in source pixels where the image does not shrink."""
PRECISION_BITS = 32 - 8 - 2
"""Of a weight: eight bits are the pixel's, one is the sign's, one is for sums above one."""


def resample(image: Image, out_h: int, out_w: int, box: Box, interpolation: str) -> Image:
    """Return a box of an image at another size, antialiased.

    Args:
        image: uint8 `[h, w, channels]`.
        out_h: height of the result, in pixels.
        out_w: width of the result, in pixels.
        box: left, top, right and bottom of the part to take, in pixels, fractions allowed (in single precision).
        interpolation: `bicubic` or `bilinear`.

    Returns:
        uint8 `[out_h, out_w, channels]`, a new array that may be written to.

    Raises:
        ValueError: an interpolation that is not known, or a box that is empty or not inside the image.
    """
    import numpy as np

    height, width = image.shape[:2]
    left, top, right, bottom = (float(np.float32(edge)) for edge in box)
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation: got {interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}")
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"box: got {box}, expected a part of {width}x{height} pixels")
    first, last = _used_rows(height, top, bottom, out_h, interpolation)
    rows = image[first:last]
    # Whole numbers leave a single-precision edge exact.
    top, bottom = top - first, bottom - first
    try:
        from PIL import Image as Pillow
    except ImportError:
        wide = _along_width(rows, left, right, out_w, interpolation)
        return _along_height(wide, top, bottom, out_h, interpolation).copy()
    method = Pillow.BICUBIC if interpolation == "bicubic" else Pillow.BILINEAR  # type: ignore[attr-defined]

    def resized(pixels: Image) -> Image:
        picture = Pillow.fromarray(pixels).resize((out_w, last - first), method, box=(left, 0, right, last - first))
        return np.array(picture.resize((out_w, out_h), method, box=(0, top, out_w, bottom)))

    channels = rows.shape[2]
    return resized(rows) if channels == 3 else np.stack([resized(rows[:, :, channel]) for channel in range(channels)], axis=2)


def _used_rows(height: int, top: float, bottom: float, out_h: int, interpolation: str) -> tuple[int, int]:
    """Return the first source row that any output row looks at, and the one after the last."""
    scale = (bottom - top) / out_h
    support = RADIUS[interpolation] * max(scale, 1.0)
    first = int(top + 0.5 * scale - support + 0.5)
    last = int(top + (out_h - 0.5) * scale + support + 0.5)
    return max(first, 0), min(last, height)


def _along_width(image: Image, left: float, right: float, out_w: int, interpolation: str) -> Image:
    return _along_height(image.transpose(1, 0, 2), left, right, out_w, interpolation).transpose(1, 0, 2)


def _along_height(image: Image, start: float, end: float, out_size: int, interpolation: str) -> Image:
    """Return uint8 `[out_size, …]` from the rows `start` to `end` of uint8 `[size, …]`."""
    import numpy as np

    size = len(image)
    if (start, end) == (0, size) and out_size == size:
        return image
    first, weights = _weights(size, start, end, out_size, interpolation)
    total = np.full((out_size, *image.shape[1:]), 1 << (PRECISION_BITS - 1), dtype=np.int32)
    for tap in range(weights.shape[1]):
        # A tap beyond the edge has weight zero; it may read any pixel.
        source = image[np.minimum(first + tap, size - 1)].astype(np.int32)
        source *= weights[:, tap].reshape(-1, 1, 1)
        total += source
    result: Image = np.clip(total >> PRECISION_BITS, 0, 255).astype(np.uint8)
    return result


def _weights(
    size: int, start: float, end: float, out_size: int, interpolation: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return, for each output pixel of one axis, the first source pixel and the fixed-point weights from there on.

    Returns:
        int64 `[out_size]` and int32 `[out_size, taps]`.
    """
    import numpy as np

    # Pillow subtracts the edges in single precision and goes on in double.
    scale = float(np.float32(end) - np.float32(start)) / out_size
    stretch = max(scale, 1.0)
    support = RADIUS[interpolation] * stretch
    centre = start + (np.arange(out_size) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), size) - first
    taps = np.arange(int(count.max()))
    position = np.abs((taps[None, :] + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    weights = np.where(taps[None, :] < count[:, None], _cubic(position) if interpolation == "bicubic" else 1.0 - position, 0.0)
    weights[position >= RADIUS[interpolation]] = 0.0
    # One after the other, as Pillow adds them: numpy's own sum adds in pairs and rounds differently.
    total = np.add.accumulate(weights, axis=1)[:, -1:]
    weights = np.divide(weights, total, out=weights, where=total != 0.0) * (1 << PRECISION_BITS)
    return first, np.trunc(weights + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution with a = -0.5, for x from 0 to 2.

    Source: R. Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    import numpy as np

    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, far)
