"""Numeric parity: how far two implementations of one network are apart on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetune.artefacts import NumericParity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["PLAIN_SESSION", "compare_logits", "spread_rows"]

# Stands for what has no finite value: JSON has no infinity.
FARTHEST = 1e300

# How a file is opened here to compare it with what it came from: one thread, so that sums are the same each time.
PLAIN_SESSION = {"providers": ["CPUExecutionProvider"], "graph_optimization": "all", "intra_op_threads": 1}


def compare_logits(
    reference: npt.NDArray[np.float32], candidate: npt.NDArray[np.float32], names: Sequence[str]
) -> NumericParity:
    """Return the distance of two tables of logits.

    NMSE = sum (candidate - reference)^2 / sum reference^2, over all images and classes.

    Args:
        reference: float32 `[N, C]`.
        candidate: float32 `[N, C]`.
        names: of the images, for the worst one.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    import numpy as np

    if reference.shape != candidate.shape or not len(reference):
        raise ValueError(f"logits of shapes {reference.shape} and {candidate.shape} cannot be compared")
    difference = np.abs(candidate.astype(np.float64) - reference.astype(np.float64))
    # NaN must win: a comparison with it is the worst there is.
    worst = int(np.argmax(np.where(np.isfinite(difference), difference, np.inf).max(axis=1)))
    energy = float(np.square(reference.astype(np.float64)).sum())
    error = float(np.square(difference).sum())
    finite = bool(np.isfinite(difference).all())
    return NumericParity(
        images=len(reference),
        max_abs=float(difference.max()) if finite else FARTHEST,
        # Beside logits that are all zero, any error is as large as errors get.
        nmse=min(error / energy if energy else FARTHEST * (error > 0), FARTHEST) if finite else FARTHEST,
        top1_agreement_percent=100.0 * float((reference.argmax(axis=1) == candidate.argmax(axis=1)).mean()),
        worst=names[worst],
    )


def spread_rows(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` row numbers of `count`, evenly spread, the first one included."""
    if wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]
