"""Opens every image once: checks its digest, decodes it, notes what it is, and hands its pixels on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgetune.data.index import UNREADABLE, usable_cores
from edgetune.data.source import Item, Source
from edgetune.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]
    Sink = Callable[[int, Image], None]

__all__ = ["Seen", "choose_image_size", "decode_all"]

BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of one item.

    Attributes:
        state: ok; corrupt: its bytes are no usable image; unreadable: no bytes came; changed: not the bytes of the index.
        reason: why it is not ok.
        digest: sha256 of the encoded bytes.
        size_bytes: of the encoded bytes.
        pixels: sha256 of the decoded picture, shape and values.
        height: of the decoded picture.
        width: of the decoded picture.
        notes: conversions that decoding needed.
    """

    state: Literal["ok", "corrupt", "unreadable", "changed"]
    reason: str = ""
    digest: str = ""
    size_bytes: int = 0
    pixels: str = ""
    height: int = 0
    width: int = 0
    notes: tuple[str, ...] = ()


def decode_all(
    items: Sequence[Item], expected: Sequence[str] | None, sink: Sink, progress: Progress, *, channels: int = 3
) -> list[Seen]:
    """Decode every item once, on all usable cores, holding one picture per core in memory.

    Threads are enough: Pillow and hashlib let go of Python's lock where the time goes.

    Args:
        items: what to decode.
        expected: the sha256 that each item's bytes must have; "", or None for all, to take them as they are.
        sink: called with the place and the pixels, uint8 `[h, w, channels]`, of each decoded item, from several threads.
        progress: is told how many items are done.
        channels: of the pictures: 3 for RGB, 1 for grey; others are those of .npy files.
    """

    def work(place: int) -> Seen:
        digest = expected[place] or None if expected else None
        return _decode(items[place], digest, lambda image: sink(place, image), channels)

    seen: list[Seen] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(items), BATCH):
            seen += pool.map(work, range(start, min(start + BATCH, len(items))))
            progress.advance("images decoded", len(seen), len(items))
    return seen


def _decode(item: Item, expected: str | None, sink: Callable[[Image], None], channels: int) -> Seen:
    from edgetune.device.decode import ImageFault, decode_image_noting

    try:
        content = item.read()
    except OSError as fault:
        state: Literal["changed", "unreadable"] = "unreadable" if expected in (None, UNREADABLE) else "changed"
        return Seen(state=state, reason=f"cannot be read{' any more' * (state == 'changed')}: {fault.strerror}")
    digest = hashlib.sha256(content).hexdigest()
    if expected is not None and digest != expected:
        return Seen(state="changed", reason="changed during the run", digest=digest)
    try:
        image, notes = decode_image_noting(content, channels)
    except ImageFault as fault:
        return Seen(state="corrupt", reason=str(fault), digest=digest, size_bytes=len(content))
    height, width = image.shape[:2]
    pixels = hashlib.sha256(f"{height}x{width}:".encode())
    pixels.update(image.tobytes())
    sink(image)
    return Seen(
        state="ok", digest=digest, size_bytes=len(content), pixels=pixels.hexdigest(), height=height, width=width, notes=notes
    )


def choose_image_size(source: Source) -> int:
    """Return the height and width that a model for these images should have, looking at their headers only.

    224 pixels where at least half of the images are that large on their shorter side; less, in steps of 32 and at least 64,
    where they are smaller: enlarging them would cost time on the device and show nothing more. 48 for the digits.
    """
    import statistics

    if source.name == "digits":
        from edgetune.data.digits import IMAGE_SIZE

        return IMAGE_SIZE
    # Pictures that stand in no files of their own have to be made to be looked at, and are of one make: some are enough.
    items = source.items[:: 1 + len(source.items) // 500] if source.version else source.items
    sides = [side for side in map(_shorter_side, items) if side]
    # The upper of the two middle values: no fractions of pixels, and a folder of one size gets that size.
    median = statistics.median_high(sides) if sides else 224
    return 224 if median >= 224 else max(64, 32 * -(-median // 32))


def _shorter_side(item: Item) -> int:
    """Return the shorter side of an image in pixels, or 0 if it has no header that can be read."""
    import warnings

    from PIL import Image

    from edgetune.device.arrays import HEADER_BYTES, MAGIC, array_size
    from edgetune.device.decode import FORMATS

    try:
        with warnings.catch_warnings(), item.open() as file:
            warnings.simplefilter("ignore")
            if file.read(len(MAGIC)) == MAGIC:
                file.seek(0)
                return min(array_size(file.read(HEADER_BYTES)))
            file.seek(0)
            with Image.open(file, formats=FORMATS) as picture:
                return min(picture.size)
    except Exception:
        # Parsers trip over junk in any way there is; the decoder will name the fault.
        return 0
