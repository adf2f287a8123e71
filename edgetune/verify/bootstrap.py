"""Intervals by resampling images, for figures that have no formula for one: mean average precision and RMSE.

As many images as there are are drawn with replacement, 2,000 times; in the figure over each of these samples an image weighs as
often as it was drawn. The percentiles of the 2,000 figures bound the true one (Efron 1979, "Bootstrap methods: another look at
the jackknife"). A comparison of two models draws the same images for both. The seed is fixed: the same logits give the same
verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Weights = npt.NDArray[np.float32]
    Samples = npt.NDArray[np.float64]

__all__ = ["RESAMPLES", "Change", "average_precisions", "bounds", "judged_change", "mean_precisions", "resampled", "rmses"]

RESAMPLES = 2000
SEED = 0
TAIL_PERCENT = 5.0
"""Each bound errs at most once in twenty."""
FEWEST_IMAGES = 30
"""Percentiles over fewer images are too narrow to rest a verdict on."""
CELLS = 4_000_000
"""Weights held at once."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """How much worse a candidate is than its baseline on the same images.

    Attributes:
        verdict: KEPT, BROKEN or INCONCLUSIVE.
        reason: why, where it is not KEPT; else empty.
        images: the number of images.
        resamples: how often they were drawn again.
        estimate: on the images themselves.
        low: with 95 % confidence it is above this.
        high: with 95 % confidence it is below this.
    """

    verdict: Literal["KEPT", "BROKEN", "INCONCLUSIVE"]
    reason: str
    images: int
    resamples: int
    estimate: float
    low: float
    high: float


def resampled(statistic: Callable[[Weights], Samples], images: int) -> Samples:
    """Return a figure over every sample: float64 `[..., 2000]`.

    Args:
        statistic: from weights `[N, B]`, how often each image stands in each of B samples, to the figures `[..., B]`.
        images: N.
    """
    generator = np.random.default_rng(SEED)
    at_once = max(1, CELLS // images)
    parts = []
    for first in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - first)
        drawn = generator.integers(0, images, (size, images)) * size + np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=images * size).reshape(images, size)
        parts.append(statistic(counts.astype(np.float32)))
    return np.concatenate(parts, axis=-1)


def bounds(samples: Samples, family: int = 1) -> tuple[float, float]:
    """Return the percentiles that bound a figure, each with 95 % confidence; samples without the figure (NaN) are left out.

    Args:
        samples: `[2000]`, of `resampled`.
        family: of how many figures the lower bound is to hold for all at once (Bonferroni).
    """
    usable = samples[np.isfinite(samples)]
    low, high = np.percentile(usable, [TAIL_PERCENT / family, 100 - TAIL_PERCENT])
    return float(low), float(high)


def judged_change(
    estimate: float, samples: Samples, tolerance: float, *, images: int, fewest: int = FEWEST_IMAGES, family: int = 1
) -> Change:
    """Judge whether something grew by no more than a tolerance.

    KEPT: the upper bound is within it. BROKEN: the lower bound is beyond it. Too few images leave it open.

    Args:
        estimate: the growth on the images themselves.
        samples: of the growth, `[2000]`.
        tolerance: in the same unit.
        images: how many there are.
        fewest: how many a verdict of KEPT needs.
        family: of how many figures are judged side by side, so that one of many is not called broken by chance. KEPT needs no
            such care where all of them must be kept.
    """
    low, high = bounds(samples, family)
    verdict: Literal["KEPT", "BROKEN", "INCONCLUSIVE"] = "INCONCLUSIVE"
    reason = "the images cannot tell a change within the tolerance from one beyond it"
    if images < (fewest if high <= tolerance else FEWEST_IMAGES):
        reason = f"{images} test images are too few to tell; {max(fewest, FEWEST_IMAGES)} are the least"
    elif high <= tolerance:
        verdict, reason = "KEPT", ""
    elif low > tolerance:
        verdict, reason = "BROKEN", "the change is larger than the tolerance, beyond what chance explains"
    return Change(verdict=verdict, reason=reason, images=images, resamples=RESAMPLES, estimate=estimate, low=low, high=high)


def average_precisions(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_], weights: Weights) -> Samples:
    """Return the average precision of one label over weighed samples: float64 `[B]`, NaN where no positive was drawn.

    AP = Σ over positives of the precision among all images with at least their score, over the number of positives; that is
    scikit-learn's sum over thresholds, ties included.

    Args:
        scores: `[N]`, larger where the label is likelier.
        truth: `[N]`.
        weights: `[N, B]`.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, weights = scores[order], weights[order]
    positive = np.flatnonzero(truth[order])
    if not len(positive):
        return np.full(weights.shape[1], np.nan)
    # The last image of those with the same score: a threshold cannot part them.
    last = np.searchsorted(-ranked, -ranked[positive], side="right") - 1
    drawn = weights[positive]
    hits = np.cumsum(drawn, axis=0)[np.searchsorted(positive, last, side="right") - 1]
    seen = _sums_up_to(weights, last)
    precisions = hits / np.maximum(seen, 1)
    total = drawn.sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        found: Samples = (drawn * precisions).sum(axis=0, dtype=np.float64) / total
    return found


def _sums_up_to(weights: Weights, last: npt.NDArray[np.int64]) -> Weights:
    """Return the sums of the first `last + 1` rows of weights `[N, B]`, for ascending `last`: `[len(last), B]`."""
    ends, again = np.unique(last, return_inverse=True)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sums: Weights = np.cumsum(np.add.reduceat(weights[: ends[-1] + 1], starts, axis=0), axis=0)[again]
    return sums


def mean_precisions(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.float32], weights: Weights) -> Samples:
    """Return the mean over labels of the average precision over weighed samples: float64 `[B]`, 0 to 1.

    A label counts in the samples that have a positive of it; NaN where no label has any.

    Args:
        logits: `[N, L]`.
        targets: `[N, L]`, 0 or 1, NaN where not known.
        weights: `[N, B]`.
    """
    total, labels = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for label in range(logits.shape[1]):
        known, truth = np.isfinite(targets[:, label]), targets[:, label] == 1
        if not truth.any():
            continue
        found = average_precisions(logits[known, label], truth[known], weights[known])
        labels += np.isfinite(found)
        total += np.nan_to_num(found)
    return np.where(labels > 0, total / np.maximum(labels, 1), np.nan)


def rmses(squared: Samples, weights: Weights) -> Samples:
    """Return the root of the mean squared error of each value over weighed samples: float64 `[V, B]`.

    NaN where a sample has no image of which the value is known.

    Args:
        squared: the squared errors, `[V, N]`; NaN where the truth is not known.
        weights: `[N, B]`.
    """
    known = np.isfinite(squared)
    drawn = weights.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found: Samples = np.sqrt((np.where(known, squared, 0.0) @ drawn) / (known @ drawn))
    return found
