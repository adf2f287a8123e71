"""Whether a candidate's confidence still means what its baseline's meant."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from edgetune.artefacts import VerdictRow
from edgetune.verify.bootstrap import judged_change, resampled
from edgetune.verify.metrics import BINS, calibration_error, softmax

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]

__all__ = ["calibration"]

EASILY_SEEN = 1 + 0.842 / 1.645
"""Half an interval at 95 % times this is the change that is seen four times out of five."""


def calibration(baseline: Logits, candidate: Logits, labels: Labels, tolerance_points: float, name: str) -> VerdictRow:
    """Judge whether the expected calibration error grew by no more than a tolerance: a paired bootstrap over images.

    Args:
        baseline: float32 `[N, C]`, of one head of a single label, all finite.
        candidate: likewise.
        labels: int64 `[N]`.
        tolerance_points: the allowed growth; 1 point is 0.01.
        name: of the row.
    """
    tables = [_gaps(logits, labels) for logits in (baseline, candidate)]

    def growth(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        before, after = (np.abs(table @ weights.astype(np.float64)).sum(axis=0) for table in tables)
        grown: npt.NDArray[np.float64] = 100 * (after - before) / weights.sum(axis=0)
        return grown

    images = len(labels)
    first, second = (100 * calibration_error(logits, labels) for logits in (baseline, candidate))
    found = judged_change(second - first, resampled(growth, images), tolerance_points, images=images)
    return VerdictRow(
        kind="calibration",
        name=name,
        verdict=found.verdict,
        figure=f"{found.estimate:+.2f} points [{found.low:+.2f}, {found.high:+.2f}] ({first:.2f} → {second:.2f})",
        limit=f"≤ +{tolerance_points:g} points",
        reason=found.reason,
        data={
            "test": "paired bootstrap",
            "tolerance_points": tolerance_points,
            "samples": f"{images} images",
            "smallest": f"{EASILY_SEEN * (found.high - found.low) / 2:.2f} points",
            "baseline_points": first,
            "candidate_points": second,
            **asdict(found),
        },
    )


def _gaps(logits: Logits, labels: Labels) -> npt.NDArray[np.float64]:
    """Return, per bin of confidence and image, right less confidence: `[bins, N]`, zero outside the image's bin."""
    probabilities = softmax(logits)
    confidence = probabilities.max(axis=1)
    gaps = np.zeros((BINS + 1, len(labels)))
    gaps[np.ceil(confidence * BINS).astype(np.int64), np.arange(len(labels))] = (logits.argmax(axis=1) == labels) - confidence
    return gaps
