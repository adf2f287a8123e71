"""Which of several backbones to take, by what each reaches and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetune.artefacts import Candidate

__all__ = ["pareto", "recommend"]


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that no other one beats, the fastest first.

    One beats another if its score is no lower and its median latency no higher, and it is better in one of them, or equal in
    both with a smaller file. Only those count that are both scored and timed.
    """
    points = [(one, point) for one in candidates if (point := _point(one))]
    front = [one for one, own in points if not any(_beats(other, own) for _, other in points)]
    return sorted(front, key=_place)


def _point(candidate: Candidate) -> tuple[float, float, int] | None:
    """Return latency, negated score and size: of each, less is better."""
    if candidate.probe is None or candidate.timing is None:
        return None
    return candidate.timing.p50_ms, -candidate.probe.score, candidate.timing.size_bytes


def _beats(one: tuple[float, float, int], other: tuple[float, float, int]) -> bool:
    return one[0] <= other[0] and one[1] <= other[1] and one < other


def _place(candidate: Candidate) -> tuple[float, float, int]:
    return _point(candidate) or (math.inf, 0.0, 0)


def recommend(
    front: Sequence[Candidate], candidates: Sequence[Candidate], budget_ms: float | None
) -> tuple[Candidate | None, str]:
    """Return the candidate to take, and why in one sentence.

    Args:
        front: of `pareto`.
        candidates: all of them.
        budget_ms: what the p90 of the latency must keep; the best that does is taken. None: the front's knee.

    Returns:
        None and why, where there is nothing to choose from or nothing keeps the budget.
    """
    if not front:
        return None, "no candidate is both scored and timed"
    if budget_ms is None:
        return _by_knee(front)
    within = [one for one in candidates if _point(one) and one.timing and one.timing.p90_ms <= budget_ms]
    if not within:
        fastest = front[0]
        return None, f"none keeps the budget of {budget_ms:g} ms (p90); the fastest is {_named(fastest)}"
    best = min(within, key=lambda one: (_place(one)[1], *_place(one)))
    return best, f"{_named(best)}: the best that keeps the budget of {budget_ms:g} ms (p90){_as_good(best, front)}"


def _by_knee(front: Sequence[Candidate]) -> tuple[Candidate, str]:
    taken, best = knee(front), front[-1]
    if taken is best:
        alone = "no other is faster or better" if len(front) == 1 else "the front has no knee before its most accurate end"
        return taken, f"{_named(taken)}: {alone}{_as_good(taken, front)}"
    times = _place(best)[0] / _place(taken)[0]
    beyond = f"{best.backbone} gains {_place(taken)[1] - _place(best)[1]:.1f} points in {times:.1f} times the time"
    return taken, f"{_named(taken)}: the knee of the front; {beyond}{_as_good(taken, front)}"


def _as_good(taken: Candidate, front: Sequence[Candidate]) -> str:
    """Return which faster candidate may be as good: the fastest within one standard error."""
    if taken.probe is None:
        return ""
    enough = taken.probe.score - taken.probe.standard_error
    other = next((one for one in front if one.probe and one.probe.score >= enough and _place(one) < _place(taken)), None)
    if other is None:
        return ""
    share = _place(other)[0] / _place(taken)[0]
    return f"; {other.backbone} is within one standard error of it in {share:.2f} of the time"


def knee(front: Sequence[Candidate]) -> Candidate:
    """Return the point of a front that lies farthest above the line between its ends; without such a one, its slow end.

    The latency is taken by its logarithm: twice as slow is as far at 1 ms as at 10. After Satopää et al. 2011, "Finding a
    'Kneedle' in a haystack".

    Args:
        front: the fastest first, at least one.
    """
    xs, ys = [math.log(_place(one)[0]) for one in front], [-_place(one)[1] for one in front]
    if len(front) < 3:
        return front[-1]
    slope = (ys[-1] - ys[0]) / (xs[-1] - xs[0])
    heights = [y - ys[0] - slope * (x - xs[0]) for x, y in zip(xs, ys, strict=True)]
    inner = max(range(1, len(front) - 1), key=heights.__getitem__)
    return front[inner] if heights[inner] > 0 else front[-1]


def _named(candidate: Candidate) -> str:
    if candidate.probe is None or candidate.cost is None or candidate.timing is None:
        raise ValueError(f"{candidate.backbone} is not both scored and timed")
    probe, timing = candidate.probe, candidate.timing
    score = f"{probe.score:.1f} ± {probe.standard_error:.1f}"
    return f"{candidate.backbone} ({score}, {candidate.cost.shipped} p50 {timing.p50_ms:.2f} ms)"
