"""What a search for session options found: each trial against the present options, and which of them is to be taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.verify.statistics import Shift

__all__ = ["Trial", "Tuned"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What options cost against the present ones.

    Attributes:
        words: the options, for a person.
        options: the options.
        part: `final`, `control` (the present ones against themselves), or `screening`: tried too rarely to be judged.
        shift: of ln(candidate / present); its bounds are infinite where there are too few pairs.
        present_ms: the median of the present options' medians, in the same pairs.
        median_ms: of these options.
        peak_memory_bytes: of the model alone, the median; None where the device cannot tell.
    """

    words: str
    options: Mapping[str, Any]
    part: str
    shift: Shift
    present_ms: float
    median_ms: float
    peak_memory_bytes: int | None

    @property
    def faster(self) -> bool:
        """Whether the options are faster beyond the noise."""
        return self.part == "final" and self.shift.high < 0

    def percent(self) -> tuple[float, float, float]:
        """Return by how much the latency changes, in percent: the estimate and its bounds."""
        shift = self.shift
        return 100 * math.expm1(shift.estimate), 100 * math.expm1(shift.low), 100 * math.expm1(shift.high)

    def to_json(self) -> dict[str, Any]:
        """Return all figures as JSON types."""
        estimate, low, high = (round(value, 3) if math.isfinite(value) else None for value in self.percent())
        return {
            "options": dict(self.options),
            "words": self.words,
            "part": self.part,
            "change_percent": estimate,
            "low_percent": None if math.isinf(self.shift.low) else low,
            "high_percent": high,
            "pairs": self.shift.pairs,
            "present_ms": self.present_ms,
            "median_ms": self.median_ms,
            "peak_memory_bytes": self.peak_memory_bytes,
            "faster": self.faster,
        }


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found.

    Attributes:
        where: the device, in words.
        environment: of the device.
        present: the options that were searched from: the model's own, with no more threads than the device has.
        lowered: a sentence for each option of the model that the device cannot honour.
        trials: the control first, then the final and the screening, the fastest first.
        best: the trial whose options are to be taken; None where the present ones stay.
        reason: why they stay; empty if they do not.
        quick: whether little was measured.
    """

    where: str
    environment: Mapping[str, Any]
    present: Mapping[str, Any]
    trials: tuple[Trial, ...]
    best: Trial | None
    reason: str
    quick: bool
    lowered: tuple[str, ...] = ()

    @property
    def kept(self) -> Trial | None:
        """What is to be written: the best options, else the present ones where the device cannot honour the model's own."""
        return self.best or (self.trials[0] if self.lowered else None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "where": self.where,
            "present": dict(self.present),
            "lowered": list(self.lowered),
            "trials": [trial.to_json() for trial in self.trials],
            "best": None if self.best is None else dict(self.best.options),
            "reason": self.reason,
            "quick": self.quick,
        }
