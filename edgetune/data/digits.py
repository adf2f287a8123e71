"""The built-in source: scikit-learn's 1,797 scanned digits, 8x8 pixels of 17 greys, as if they were PNG files."""

from __future__ import annotations

import hashlib
from functools import partial

from edgetune.data.png import stored_png
from edgetune.data.source import Item, Source, one_head
from edgetune.errors import DataError

__all__ = ["IMAGE_SIZE", "digits", "digits_version", "grey_png"]

IMAGE_SIZE = 48


def digits(head_name: str = "label") -> Source:
    """Return the digits as a source: classes 0 to 9, names digits/0000.png to digits/1796.png."""
    import numpy as np
    from sklearn.datasets import load_digits

    scans = load_digits()
    pixels = np.round(scans.images * (255 / 16)).astype(np.uint8)
    items = tuple(
        Item(
            name=f"digits/{number:04}.png",
            label=str(target),
            targets=(float(target),),
            make=partial(grey_png, image.tobytes(), 8, 8),
        )
        for number, (image, target) in enumerate(zip(pixels, scans.target, strict=True))
    )
    classes = tuple(str(digit) for digit in range(10))
    return Source(name="digits", items=items, heads=one_head(head_name, classes), strata=classes, version=digits_version())


def digits_version() -> str:
    """Return a digest that stands for the digits, without loading them: they ship with scikit-learn and follow its version.

    Raises:
        DataError: scikit-learn is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        text = f"digits of scikit-learn {version('scikit-learn')} as edgetune draws them, 1"
    except PackageNotFoundError as fault:
        raise DataError(
            "the built-in digits need scikit-learn, which is not installed", remedy="pip install scikit-learn"
        ) from fault
    return hashlib.sha256(text.encode()).hexdigest()


def grey_png(pixels: bytes, width: int, height: int) -> bytes:
    """Return a grey 8-bit PNG file of row-major pixels; see `stored_png`."""
    return stored_png(pixels, width, height, 1)
