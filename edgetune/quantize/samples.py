"""Which train images calibrate, which decide, and which are learnt from: drawn by a seed, stratified, no two the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.artefacts import Dataset, Split
from edgetune.errors import DataError
from edgetune.quantize.calibrate import Batches

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgetune.recipe import QuantizeRecipe

__all__ = ["Samples", "calibration_rows", "draw_samples"]

# Images per calibration batch: few, since every activation of the batch is alive at once.
PIXELS_PER_BATCH = 8 * 96 * 96
IMAGES_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Rows of the train split, by what they are for.

    Attributes:
        dataset: that they are of.
        calibration: ranges, corrections and reconstruction see these.
        held_out: these decide what is kept. The calibration images themselves, where there are too few.
        learnable: quantization-aware training sees these.
        warnings: what a reader of the report must know.
    """

    dataset: Dataset
    calibration: tuple[int, ...]
    held_out: tuple[int, ...]
    learnable: tuple[int, ...]
    warnings: tuple[str, ...]

    def read(self, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Return images of the train split: uint8 `[n, H, W, K]`."""
        return self.dataset.read("train", rows)

    def batches(self) -> Batches:
        """Return what starts the stream of calibration images."""
        spec = self.dataset.preprocessing
        size = max(1, PIXELS_PER_BATCH // (spec.height * spec.width))

        def start() -> Iterator[npt.NDArray[np.uint8]]:
            for first in range(0, len(self.calibration), size):
                yield self.read(self.calibration[first : first + size])

        return start


def draw_samples(dataset: Dataset, recipe: QuantizeRecipe, seed: int, *, learnable: int) -> Samples:
    """Return the images that a recipe asks for.

    Args:
        dataset: whose train split they are of.
        recipe: how many.
        seed: draws them.
        learnable: how many images to learn from, beside those that calibrate.

    Raises:
        DataError: no train image is left to calibrate with.
    """
    most = recipe.calibration_images + recipe.held_out_images + learnable
    rows, dropped = calibration_rows(dataset, most, seed)
    held = min(recipe.held_out_images, len(rows) // 4)
    calibration = rows[: min(recipe.calibration_images, len(rows) - held)]
    held_out = rows[len(calibration) : len(calibration) + held]
    warnings: list[str] = []
    if dropped:
        warnings.append(f"{dropped} train images are also in the test set and were left out of the calibration")
    if not held:
        warnings.append(f"{len(rows)} train images are too few to hold some out: the steps were judged by what they saw")
    return Samples(
        dataset=dataset,
        calibration=tuple(calibration),
        held_out=tuple(held_out or calibration),
        learnable=(*calibration, *rows[len(calibration) + held :]),
        warnings=tuple(warnings),
    )


def calibration_rows(dataset: Dataset, wanted: int, seed: int) -> tuple[list[int], int]:
    """Return rows of the train split to calibrate with, and how many were dropped for being test images, too.

    The classes (or strata) take turns, each in an order drawn from the seed, so that every one has the same number of images as
    far as its images go.

    Raises:
        DataError: none is left.
    """
    import numpy as np

    labels = np.asarray(dataset.labels("train"))
    generator = np.random.default_rng(seed)
    strata = range(int(labels.max()) + 1)
    queues = [list(generator.permutation(np.flatnonzero(labels == stratum))) for stratum in strata]
    order = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    test = {digest for _, digest in _digests(dataset, "test", range(dataset.counts["test"]))}
    rows: list[int] = []
    dropped = 0
    for row, digest in _digests(dataset, "train", order):
        if len(rows) == wanted:
            break
        if digest in test:
            dropped += 1
        else:
            rows.append(row)
    if not rows:
        raise DataError("no train image is left to calibrate with: all are in the test set, too", remedy="keep the sets apart")
    return rows, dropped


def _digests(dataset: Dataset, split: Split, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield each of the rows with the digest of its image."""
    for first in range(0, len(rows), IMAGES_AT_ONCE):
        some = rows[first : first + IMAGES_AT_ONCE]
        for row, image in zip(some, dataset.read(split, some), strict=True):
            yield int(row), hashlib.sha256(image.tobytes()).digest()
