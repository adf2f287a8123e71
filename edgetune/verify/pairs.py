"""The verdicts on what a candidate costs, from pairs of fresh processes of it and its baseline.

The unit is a pair of processes. Of its queries, xᵢ is the median over the blocks of ln(candidate / baseline): neighbouring
blocks see the same machine. Over K pairs there are a Hodges-Lehmann estimate and exact signed-rank bounds, which are looked at
after 10, 20 and 40 pairs only, each time at a third of 5 %: looking after every pair would err nearly four times as often.
Before the two are compared the baseline is compared with itself; where that cannot show that there is no difference, times say
nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.artefacts import VerdictName, VerdictRow
from edgetune.verify.rows import undecided
from edgetune.verify.statistics import POWER_Z, Shift, hodges_lehmann

__all__ = ["LOOKS", "QUICK_LOOKS", "Timed", "cost", "latency", "log_ratio", "timed"]

LOOKS = (10, 20, 40)
QUICK_LOOKS = (6,)
ALPHA = 0.05

Pair = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What the pairs of processes gave.

    Attributes:
        control: pairs of the baseline with itself.
        pairs: pairs of the baseline and the candidate.
        alpha: the chance of being wrong on each side at each look.
        restless: why the device was not fit to be timed, whatever the pairs say; empty if it was.
    """

    control: tuple[Pair, ...]
    pairs: tuple[Pair, ...]
    alpha: float
    restless: str = ""


def timed(measure: Callable[[bool, int, int], Sequence[Pair]], tolerance_percent: float, looks: Sequence[int] = LOOKS) -> Timed:
    """Have pairs measured until their verdict on latency is clear or there are enough.

    Args:
        measure: called with whether the candidate takes part, the number of the first pair and how many; returns them.
        tolerance_percent: the allowed growth of the latency.
        looks: after how many pairs there may be a verdict.
    """
    alpha = ALPHA / len(looks)
    tolerance = math.log1p(tolerance_percent / 100)
    control = _until(lambda first, count: measure(False, first, count), looks, lambda s: _quiet(s, tolerance), alpha)
    # Without a quiet control there will be no verdict: the first look is for the reader, and for memory.
    reach = looks if _quiet(_shift(control, alpha), tolerance) else looks[:1]
    pairs = _until(lambda first, count: measure(True, first, count), reach, lambda s: _verdict(s, tolerance) is not None, alpha)
    return Timed(control=tuple(control), pairs=tuple(pairs), alpha=alpha)


def _until(
    measure: Callable[[int, int], Sequence[Pair]], looks: Sequence[int], clear: Callable[[Shift], bool], alpha: float
) -> list[Pair]:
    pairs: list[Pair] = []
    for look in looks:
        pairs += measure(len(pairs), look - len(pairs))
        if clear(_shift(pairs, alpha)):
            break
    return pairs


def _shift(pairs: Sequence[Pair], alpha: float) -> Shift:
    return hodges_lehmann([log_ratio(pair) for pair in pairs], alpha)


def log_ratio(pair: Pair) -> float:
    """Return how much slower the second of a pair was than the first: the median over the blocks of ln(second / first)."""
    baseline, candidate = (side["block_medians_ms"] for side in pair["sides"])
    return statistics.median(math.log(after / before) for before, after in zip(baseline, candidate, strict=True))


def _verdict(shift: Shift, tolerance: float) -> VerdictName | None:
    """Return KEPT or BROKEN, or None where the bounds enclose the tolerance."""
    return "KEPT" if shift.high < tolerance else "BROKEN" if shift.low > tolerance else None


def _quiet(shift: Shift, tolerance: float) -> bool:
    """Return whether a comparison of a model with itself shows no difference: neither one is slower than the other."""
    return -tolerance < shift.low and shift.high < tolerance


def _smallest(shift: Shift, alpha: float) -> float:
    """Return the change that such pairs show four times out of five: half the interval, and the power's part of it."""
    critical = statistics.NormalDist().inv_cdf(1 - alpha)
    return (shift.high - shift.low) / 2 * (1 + POWER_Z / critical)


def latency(found: Timed, tolerance_percent: float, name: str = "latency, batch 1") -> VerdictRow:
    """Judge whether the candidate is slower than its baseline by no more than a tolerance."""
    tolerance = math.log1p(tolerance_percent / 100)
    shift, control = _shift(found.pairs, found.alpha), _shift(found.control, found.alpha)
    low, estimate, high = (_percent(value) for value in (shift.low, shift.estimate, shift.high))
    medians = [statistics.median(pair["sides"][side]["median_ms"] for pair in found.pairs) for side in (0, 1)]
    figure = f"{estimate:+.1f} % [{_end(low)}, {_end(high)}] ({medians[0]:.2f} → {medians[1]:.2f} ms)"
    verdict, reason = _verdict(shift, tolerance), ""
    if found.restless:
        verdict, reason = None, found.restless
    elif not _quiet(control, tolerance):
        verdict = None
        ends = ", ".join(_end(_percent(value)) for value in (control.low, control.high))
        reason = (
            f"noise: the baseline against itself, in {control.pairs} pairs, comes out at [{ends}] %; give the machine rest, or "
            "allow more"
        )
    elif verdict is None:
        reason = f"{shift.pairs} pairs cannot tell a change within the tolerance from one beyond it"
    elif verdict == "BROKEN":
        reason = "slower than the tolerance allows, beyond what chance explains"
    return VerdictRow(
        kind="latency",
        name=name,
        verdict=verdict or "INCONCLUSIVE",
        figure=figure,
        limit=f"≤ +{tolerance_percent:g} %",
        reason=reason,
        data={
            "test": "Hodges-Lehmann, exact signed-rank bounds",
            "alpha": found.alpha,
            "tolerance_percent": tolerance_percent,
            "samples": f"{shift.pairs} pairs of processes",
            "smallest": "nothing" if math.isinf(shift.high) else f"{_percent(_smallest(shift, found.alpha)):.1f} %",
            **_bounds(shift, found.pairs),
            "baseline_ms": medians[0],
            "candidate_ms": medians[1],
            "control": _bounds(control, found.control),
        },
    )


def _bounds(shift: Shift, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return an estimate with its bounds in percent, and the pairs that it rests on."""
    return {
        "pairs": shift.pairs,
        "estimate_percent": _percent(shift.estimate),
        "low_percent": _percent(shift.low),
        "high_percent": _percent(shift.high),
        "log_ratios": [round(log_ratio(pair), 5) for pair in pairs],
    }


def _percent(logarithm: float) -> float | None:
    return 100 * math.expm1(logarithm) if math.isfinite(logarithm) else None


def _end(value: float | None, unit: str = "") -> str:
    return "?" if value is None else f"{value:+.1f}{unit}"


def cost(
    found: Timed, key: str, name: str, *, kind: str, tolerance_percent: float, floor: float, scale: float, unit: str
) -> VerdictRow:
    """Judge whether something that each process reports of itself once grew by no more than a tolerance.

    Args:
        found: the pairs.
        key: of the process's report.
        name: of the row.
        kind: of the row.
        tolerance_percent: the allowed growth over the baseline's median.
        floor: the growth that is always allowed, in `unit`.
        scale: what is reported is this many times `unit`.
        unit: for a person.
    """
    values = [[pair["sides"][side].get(key) for side in (0, 1)] for pair in found.pairs]
    if any(value is None for pair in values for value in pair):
        return undecided(kind, name, "the device does not report it")
    base, other = (statistics.median(pair[side] / scale for pair in values) for side in (0, 1))
    tolerance = max(base * tolerance_percent / 100, floor)
    shift = hodges_lehmann([(after - before) / scale for before, after in values], found.alpha)
    same = hodges_lehmann([_growth(pair, key) / scale for pair in found.control], found.alpha)
    verdict, reason = _verdict(shift, tolerance), ""
    if not _quiet(same, tolerance):
        verdict = None
        ends = ", ".join(_end(_finite(value)) for value in (same.low, same.high))
        reason = f"noise: the baseline against itself, in {same.pairs} pairs, comes out at [{ends}] {unit}"
    elif verdict is None:
        reason = f"{shift.pairs} pairs cannot tell a change within the tolerance from one beyond it"
    elif verdict == "BROKEN":
        reason = "more than the tolerance allows, beyond what chance explains"
    low, high = _finite(shift.low), _finite(shift.high)
    return VerdictRow(
        kind=kind,
        name=name,
        verdict=verdict or "INCONCLUSIVE",
        figure=f"{shift.estimate:+.1f} {unit} [{_end(low)}, {_end(high)}] ({base:.1f} → {other:.1f} {unit})",
        limit=f"≤ +{tolerance:.3g} {unit}",
        reason=reason,
        data={
            "test": "Hodges-Lehmann, exact signed-rank bounds",
            "alpha": found.alpha,
            "samples": f"{shift.pairs} pairs of processes",
            "smallest": f"{_smallest(shift, found.alpha):.2g} {unit}",
            "pairs": shift.pairs,
            "estimate": shift.estimate,
            "low": low,
            "high": high,
            "tolerance": tolerance,
            "unit": unit,
            "baseline": base,
            "candidate": other,
        },
    )


def _growth(pair: Pair, key: str) -> float:
    before, after = (side[key] for side in pair["sides"])
    return float(after - before)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
