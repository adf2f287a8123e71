from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.artefacts import Candidate, Cost, ProbeScore, Timing
from edgetune.verify.front import knee, pareto, recommend

LATENCIES = st.sampled_from([0.5, 1.0, 2.0, 4.0])
SCORES = st.sampled_from([10.0, 50.0, 60.0, 90.0])
SIZES = st.sampled_from([1000, 2000])


def candidate(name: str, latency: float | None, score: float | None, size: int = 1000, error: float = 1.0) -> Candidate:
    probe = cost = None
    if score is not None:
        probe = ProbeScore(
            backbone=name, weights={}, score=score, standard_error=error, metrics={"top-1 %": score}, images=100, penalty=0.1
        )
    if latency is not None:
        timing = Timing(p50_ms=latency, p90_ms=1.5 * latency, spread_percent=1.0, size_bytes=size)
        cost = Cost(backbone=name, parameters=1, macs=1, timings={"int8": timing}, shipped="int8")
    return Candidate(backbone=name, get="", probe=probe, cost=cost)


def names(candidates: list[Candidate]) -> list[str]:
    return [one.backbone for one in candidates]


def better(one: tuple, other: tuple) -> bool:
    """The definition, written out a second time: faster or better without loss, or as good and smaller."""
    if one[:2] == other[:2]:
        return one[2] < other[2]
    return one[0] <= other[0] and one[1] >= other[1]


@given(st.lists(st.tuples(LATENCIES, SCORES, SIZES), min_size=1, max_size=8))
def test_the_front_is_what_no_other_one_beats(points):
    candidates = [candidate(str(number), *point) for number, point in enumerate(points)]
    wanted = {str(number) for number, point in enumerate(points) if not any(better(other, point) for other in points)}
    found = pareto(candidates)
    assert {one.backbone for one in found} == wanted
    latencies = [one.timing.p50_ms for one in found if one.timing]
    assert latencies == sorted(latencies)


def test_what_is_not_scored_or_not_timed_is_not_on_the_front():
    assert names(pareto([candidate("a", 1.0, None), candidate("b", None, 90.0), candidate("c", 9.0, 10.0)])) == ["c"]
    assert recommend([], [candidate("a", 1.0, None)], None) == (None, "no candidate is both scored and timed")


def test_the_knee_is_where_more_time_begins_to_buy_little():
    front = [candidate(*row) for row in (("a", 1.0, 60.0), ("b", 2.0, 85.0), ("c", 4.0, 88.0), ("d", 8.0, 90.0))]
    assert knee(front).backbone == "b"
    taken, reason = recommend(front, front, None)
    assert taken is front[1]
    assert reason == "b (85.0 ± 1.0, int8 p50 2.00 ms): the knee of the front; d gains 5.0 points in 4.0 times the time"


@pytest.mark.parametrize("scores", [(60.0,), (60.0, 90.0), (60.0, 62.0, 90.0)])
def test_a_front_that_does_not_bend_ends_at_its_most_accurate(scores):
    front = [candidate(str(number), 2.0**number, score) for number, score in enumerate(scores)]
    assert knee(front) is front[-1]


def test_a_budget_is_kept_by_the_p90():
    front = [candidate("a", 1.0, 60.0), candidate("b", 2.0, 85.0), candidate("c", 4.0, 88.0, error=5.0)]
    taken, reason = recommend(front, front, 3.0)
    assert taken is front[1]
    assert reason.endswith("the best that keeps the budget of 3 ms (p90)")
    taken, reason = recommend(front, front, 6.0)
    assert taken is front[2]
    assert reason.endswith("; b is within one standard error of it in 0.50 of the time")
    taken, reason = recommend(front, front, 1.0)
    assert taken is None
    assert reason == "none keeps the budget of 1 ms (p90); the fastest is a (60.0 ± 1.0, int8 p50 1.00 ms)"
