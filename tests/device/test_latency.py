"""Percentiles, rounds and the order of turns."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from edgetune.device.latency import LatencyPlan, measure_latency, summary
from edgetune.device.percentiles import early_stopping, nearest_rank, overlatency_allowed, queries_needed


class Recorder:
    """Stands where a session does and writes down which model saw which image."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        self.name = name
        self.log = log

    def run(self, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
        assert outputs == ["logits"]
        assert feed["image"].shape == (1, 1, 1, 3)
        assert not gc.isenabled()
        self.log.append((self.name, int(feed["image"][0, 0, 0, 0])))
        return [np.zeros((1, 2), np.float32)]


def test_models_take_turns_in_reversing_order_and_see_the_same_images() -> None:
    log: list[tuple[str, int]] = []
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(3, axis=3)
    result = measure_latency({name: Recorder(name, log) for name in "ab"}, images, LatencyPlan(1, 3, 2))
    warm, rounds = log[:2], log[2:]
    assert warm == [("a", 0), ("b", 0)]
    assert rounds == [
        *[("a", 0), ("a", 1), ("b", 0), ("b", 1)],
        *[("b", 2), ("b", 0), ("a", 2), ("a", 0)],
        *[("a", 1), ("a", 2), ("b", 1), ("b", 2)],
    ]
    assert gc.isenabled()
    for figures in result.values():
        assert [len(block) for block in figures["samples_ms"]] == [2, 2, 2]
        assert (figures["queries"], figures["warmup"]) == (6, 1)


def test_the_garbage_collector_comes_back_after_an_error() -> None:
    with pytest.raises(AttributeError):
        measure_latency({"a": object()}, np.zeros((1, 1, 1, 3), np.uint8), LatencyPlan(1, 1, 1))
    assert gc.isenabled()


def test_the_figures_of_known_samples() -> None:
    figures = summary([[1_000_000, 3_000_000], [2_000_000, 10_000_400]])
    assert (figures["p50_ms"], figures["p90_ms"], figures["p99_ms"]) == (2.0, 10.0004, 10.0004)
    assert figures["mean_ms"] == 4.0001
    assert figures["samples_ms"] == [[1.0, 3.0], [2.0, 10.0]]
    assert figures["round_medians_ms"] == [2.0, 6.0002]
    assert figures["spread_percent"] == pytest.approx(2.0001 / 4.0001 * 100, abs=1e-3)


def test_one_round_has_no_spread() -> None:
    assert summary([[5, 6]])["spread_percent"] == 0.0


@given(st.lists(st.integers(0, 10**9), min_size=1), st.integers(1, 100))
def test_nearest_rank_is_the_least_sample_that_enough_do_not_exceed(samples: list[int], percent: int) -> None:
    value = nearest_rank(sorted(samples), percent)

    def share(limit: int) -> float:
        return sum(sample <= limit for sample in samples) * 100

    assert value in samples
    assert share(value) >= percent * len(samples)
    assert all(share(smaller) < percent * len(samples) for smaller in samples if smaller < value)


class Slow:
    """A session whose queries take as long as they are told to."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self, outputs: list[str], feed: dict[str, Any]) -> list[Any]:
        time.sleep(self.seconds)
        return []


ONE = np.zeros((1, 1, 1, 3), np.uint8)


@pytest.mark.parametrize(("queries", "discarded"), [(2048, 172), (2145, 181), (2116, 178), (7469, 685)])
def test_early_stopping_discards_as_many_queries_as_published_logs_of_mlperf(queries: int, discarded: int) -> None:
    assert overlatency_allowed(queries, 90) - 1 == discarded


def test_mlperfs_least_numbers_of_queries() -> None:
    assert (queries_needed(90), queries_needed(99)) == (64, 662)


@given(st.integers(1, 400), st.sampled_from((50, 90, 99)))
def test_the_allowance_is_the_binomial_tail(queries: int, percent: int) -> None:
    allowed = overlatency_allowed(queries, percent)
    rate = 1 - percent / 100
    tail = [float(binom.cdf(count, queries, rate)) for count in (allowed, allowed + 1)]
    assert allowed == 0 or tail[0] < 0.01 + 1e-9
    assert allowed == queries or tail[1] >= 0.01 - 1e-9


def test_too_few_queries_say_so() -> None:
    few = early_stopping(list(range(1, 64)))
    assert few["p90_ms"] is few["p99_ms"] is None
    assert few["skipped"]["p90_ms"] == "63 queries; p90 takes at least 64"
    enough = early_stopping([1_000_000] * 63 + [9_000_000])
    assert enough["p90_ms"] == 9.0
    assert enough["p50_ms"] == 1.0


def test_the_estimate_is_not_below_the_percentile_itself() -> None:
    samples = sorted(np.random.default_rng(0).integers(1, 10**6, 1024).tolist())
    figures = summary([samples])
    for percent in (50, 90, 99):
        assert figures["early_stopping"][f"p{percent}_ms"] >= figures[f"p{percent}_ms"]


def test_rounds_get_shorter_where_a_model_is_slow_but_not_below_64_queries() -> None:
    plan = LatencyPlan(warmup=2, rounds=4, queries_per_round=300, max_seconds=0.05)
    found = measure_latency({"slow": Slow(0.001), "fast": Slow(0.0)}, ONE, plan)
    assert {name: (one["queries"], one["cut_short"], one["quick"]) for name, one in found.items()} == dict.fromkeys(
        ("slow", "fast"), (64, True, False)
    )


def test_rounds_are_added_until_the_time_is_up() -> None:
    found = measure_latency({"a": Slow(0.001)}, ONE, LatencyPlan(1, 2, 4, min_seconds=0.03))["a"]
    assert found["seconds"] >= 0.03
    assert len(found["samples_ms"]) > 2
    assert (found["quick"], found["cut_short"]) == (True, False)


def test_a_paced_measurement_waits_between_queries_and_does_not_time_the_wait() -> None:
    begin = time.monotonic()
    found = measure_latency({"a": Slow(0.0)}, ONE, LatencyPlan(0, 1, 4, period_seconds=0.03))["a"]
    assert time.monotonic() - begin >= 4 * 0.03
    assert found["period_ms"] == 30.0
    assert found["queries"] == 4


def test_the_rests_of_paced_queries_count_into_the_least_time():
    found = measure_latency({"a": Slow(0.0)}, ONE, LatencyPlan(0, 1, 2, min_seconds=0.1, period_seconds=0.02))["a"]
    assert found["queries"] == 6
