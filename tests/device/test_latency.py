"""Percentiles, rounds and the order of turns."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.device.latency import LatencyPlan, measure_latency, nearest_rank, summary


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
