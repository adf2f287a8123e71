"""Histograms of activations and the ranges chosen from them."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetune.quantize.graph import integer_limits
from edgetune.quantize.histogram import BINS, Histogram
from edgetune.quantize.ranges import (
    Method,
    choose_range,
    entropy_loss,
    make_grid,
    norm_loss,
    percentile_range,
    search_range,
)

METHODS: tuple[Method, ...] = get_args(Method)
FLOAT32 = float(np.finfo(np.float32).max)
numbers = st.floats(-FLOAT32, FLOAT32, width=32)
tensors = arrays(np.float32, st.integers(1, 40), elements=st.one_of(numbers, st.sampled_from([0.0, -0.0, 1.0, 6.0])))


def counted(values: np.ndarray) -> Histogram:
    values = np.asarray(values, np.float32)
    histogram = Histogram(low=min(0.0, float(values.min())), high=max(0.0, float(values.max())))
    histogram.add(values)
    return histogram


def from_counts(counts: np.ndarray, low: float = 0.0, high: float = 1.0) -> Histogram:
    return Histogram(low=low, high=high, counts=np.asarray(counts, float))


def chosen(histogram: Histogram, method: Method, *, symmetric: bool = False, percentile: float = 99.99) -> tuple[float, float]:
    return choose_range(histogram, method=method, percentile=percentile, kind="uint8", symmetric=symmetric)


@given(tensors)
def test_every_value_is_counted_once_and_in_its_bin(values: np.ndarray) -> None:
    histogram = counted(values)
    assert histogram.zeros == np.count_nonzero(values == 0)
    assert (histogram.counts >= 0).all()
    assert histogram.counts.sum() + histogram.zeros == values.size
    # float32 arithmetic may put a value at an edge into the next bin.
    exact = (values[values != 0].astype(float) - histogram.low) / histogram.bin_width
    for place in exact:
        assert histogram.counts[max(int(place - 1e-3), 0) : int(place + 1e-3) + 1].any() or histogram.counts[-1]


def test_counting_in_parts_is_counting_at_once() -> None:
    values = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    values[::7] = 0.0
    whole = counted(values)
    parts = Histogram(low=whole.low, high=whole.high)
    for part in np.array_split(values.reshape(100, -1), 9):
        parts.add(part)
    assert (parts.counts == whole.counts).all()
    assert parts.zeros == whole.zeros


@given(tensors, st.sampled_from(METHODS), st.sampled_from(["uint8", "int8"]), st.booleans())
@example(np.zeros(5, np.float32), "entropy", "uint8", False)
@example(np.full(9, 0.3, np.float32), "entropy", "uint8", False)
@example(np.full(9, -7.0, np.float32), "pnorm", "int8", True)
@example(np.full(9, 1e-30, np.float32), "mse", "int8", False)
@example(np.array([*[0.1] * 500, 3e38], np.float32), "entropy", "uint8", False)
@example(np.array([-3e38, 3e38], np.float32), "pnorm", "uint8", False)
def test_any_tensor_has_a_range_and_a_grid(values: np.ndarray, method: Method, kind: str, symmetric: bool) -> None:
    histogram = counted(values)
    low, high = choose_range(histogram, method=method, percentile=99.0, kind=kind, symmetric=symmetric)
    reach = max(-histogram.low, histogram.high)
    assert (-reach if symmetric else histogram.low) <= low <= 0.0 <= high <= (reach if symmetric else histogram.high)
    grid = make_grid(low, high, kind, symmetric=symmetric)
    smallest, largest = integer_limits(kind)
    assert 0.0 < grid.scale < np.inf
    assert smallest <= grid.zero_point <= largest
    assert grid.zero_point == (smallest + largest + 1) // 2 or not symmetric


@given(tensors)
def test_minmax_and_all_percent_lose_nothing(values: np.ndarray) -> None:
    histogram = counted(values)
    extremes = min(0.0, float(values.min())), max(0.0, float(values.max()))
    assert chosen(histogram, "minmax") == extremes
    assert chosen(histogram, "percentile", percentile=100.0) == pytest.approx(extremes, abs=1e-9 * histogram.bin_width)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(50.0, 100.0),
    st.sampled_from([lambda x: x, lambda x: np.maximum(x, 0), lambda x: -np.maximum(x, 0), lambda x: x - 1]),
)
def test_a_percentile_lies_in_the_bin_of_the_exact_one(seed: int, percentile: float, form: Any) -> None:
    values = form(np.random.default_rng(seed).standard_t(3, 3000)).astype(np.float32)
    histogram = counted(values)
    low, high = percentile_range(histogram, percentile)
    tail = (100.0 - percentile) / 200.0
    # Between two neighbours in order any value divides them as well.
    least, most = np.quantile(values, tail, method="lower"), np.quantile(values, 1 - tail, method="higher")
    below, above = np.quantile(values, tail, method="higher"), np.quantile(values, 1 - tail, method="lower")
    slack = 1.01 * histogram.bin_width
    assert min(least, 0.0) - slack <= low <= min(below, 0.0) + slack
    assert max(above, 0.0) - slack <= high <= max(most, 0.0) + slack


def test_a_percentile_is_interpolated_within_its_bin() -> None:
    histogram = from_counts(np.full(BINS, 10.0))
    assert percentile_range(histogram, 90.0) == pytest.approx((0.0, 0.95), abs=1e-9)
    assert percentile_range(from_counts(np.full(BINS, 10.0), -1.0, 1.0), 99.99) == pytest.approx((-0.9999, 0.9999), abs=1e-9)
    # Half of the values are zero: the tails are parts of all values.
    assert percentile_range(Histogram(low=0.0, high=1.0, counts=np.full(BINS, 1.0), zeros=BINS), 90.0)[1] == pytest.approx(0.9)


def rounding_error(values: np.ndarray, low: float, high: float, power: int, *, kind: str, symmetric: bool) -> float:
    grid = make_grid(low, high, kind, symmetric=symmetric)
    smallest, largest = integer_limits(kind)
    integers = np.clip(np.round(values / grid.scale) + grid.zero_point, smallest, largest)
    return float((np.abs(values - (integers - grid.zero_point) * grid.scale) ** power).sum())


@pytest.mark.parametrize("power", [2, 3])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_the_norm_is_that_of_the_real_rounding_errors(power: int, symmetric: bool, kind: str) -> None:
    values = np.random.default_rng(1).standard_t(5, 200_000).astype(np.float32)
    histogram = counted(values)
    loss = norm_loss(histogram, power, kind, symmetric=symmetric)
    for low, high in ((histogram.low, histogram.high), (0.4 * histogram.low, 0.3 * histogram.high), (-2.0, 0.1)):
        if symmetric:
            low, high = -max(-low, high), max(-low, high)
        expected = rounding_error(values.astype(float), low, high, power, kind=kind, symmetric=symmetric)
        assert loss(np.array([low]), np.array([high]))[0] == pytest.approx(expected, rel=0.01)


@given(st.integers(0, 2**32 - 1), st.floats(-10.0, 0.0), st.floats(0.5, 20.0), st.sampled_from([2, 3]))
def test_a_range_is_only_narrowed_and_never_worse(seed: int, low: float, high: float, power: int) -> None:
    histogram = from_counts(np.random.default_rng(seed).poisson(1.0, BINS), low, high)
    loss = norm_loss(histogram, power, "uint8", symmetric=False)
    found = search_range(loss, low, high)
    assert low <= found[0] <= 0.0 <= found[1] <= high
    assert loss(np.array([found[0]]), np.array([found[1]]))[0] <= loss(np.array([low]), np.array([high]))[0]


def test_the_search_finds_what_all_pairs_of_ends_would() -> None:
    values = np.random.default_rng(2).laplace(0.0, 1.0, 100_000) + 0.8
    histogram = counted(values)
    loss = norm_loss(histogram, 2, "uint8", symmetric=False)
    low, high = search_range(loss, histogram.low, histogram.high)
    factors = np.linspace(0.05, 1.0, 96)
    every = min(loss(np.full(96, histogram.low * factor), histogram.high * factors).min() for factor in factors)
    assert loss(np.array([low]), np.array([high]))[0] < 1.005 * every


def test_one_far_value_does_not_decide_the_range() -> None:
    counts = np.zeros(BINS)
    counts[: BINS // 4] = np.random.default_rng(0).poisson(1e6, BINS // 4)
    counts[-1] = 1.0
    for method, expected in (("pnorm", (0.2, 0.6)), ("mse", (0.2, 0.4)), ("entropy", (0.2, 0.3)), ("percentile", (0.2, 0.3))):
        low, high = chosen(from_counts(counts), method)
        assert low == 0.0
        assert expected[0] < high < expected[1], method


def divergence_by_hand(histogram: Histogram, low: float, high: float) -> float:
    """The formula of `entropy_loss`, bin by bin."""
    scale = (high - low) / 255
    least = -round(-low / scale)
    inside: list[tuple[int, float]] = []
    left = right = 0.0
    for index, count in enumerate(histogram.counts):
        integer = round((histogram.low + (index + 0.5) * histogram.bin_width) / scale)
        if integer < least:
            left += count
        elif integer > least + 255:
            right += count
        elif count:
            inside.append((integer, count))
    reference = [count for _, count in inside]
    reference[0] += left
    reference[-1] += right
    groups: dict[int, list[float]] = {}
    for integer, count in inside:
        groups.setdefault(integer, []).append(count)
    quantized = [sum(groups[integer]) / len(groups[integer]) for integer, _ in inside]
    p, q = np.array(reference) / sum(reference), np.array(quantized) / sum(quantized)
    return float((p * np.log(p / q)).sum())


@given(st.integers(0, 2**32 - 1), st.floats(-3.0, 0.0), st.floats(0.5, 3.0), st.floats(0.2, 1.0), st.floats(0.2, 1.0))
def test_the_divergence_is_that_of_the_formula(seed: int, low: float, high: float, shrink: float, other: float) -> None:
    generator = np.random.default_rng(seed)
    counts = generator.poisson(generator.gamma(0.2, 50.0, BINS)).astype(float)
    counts[BINS // 2] += 1
    histogram = from_counts(counts, low, high)
    found = entropy_loss(histogram, "uint8", symmetric=False)(np.array([low * shrink]), np.array([high * other]))[0]
    if np.isfinite(found):
        assert found == pytest.approx(divergence_by_hand(histogram, low * shrink, high * other), abs=1e-9)
        assert found >= 0.0
    else:
        assert (high * other - low * shrink) / 255 < histogram.bin_width


def test_the_traps_of_the_divergence() -> None:
    # Zeros, the bulk of what a ReLU lets through, do not make the range narrow.
    values = np.abs(np.random.default_rng(3).normal(size=100_000))
    alone, among_zeros = chosen(counted(values), "entropy"), chosen(counted(np.append(values, np.zeros(10**6))), "entropy")
    assert among_zeros == alone
    assert alone[1] > 3.0
    # A range with fewer bins than integers loses nothing but what it clips: it is not considered.
    decreasing = from_counts(np.round(1e6 * np.exp(-np.arange(BINS) / 20.0)))
    assert chosen(decreasing, "entropy")[1] >= 255 / BINS * 0.99
    # Half of the values saturate at a clamp's limit: nothing is cut off there.
    assert chosen(counted(np.clip(np.random.default_rng(4).normal(6.0, 3.0, 50_000), 0, 6)), "entropy") == (0.0, 6.0)
    # Of ranges that lose nothing the widest wins.
    assert chosen(counted(np.array([0.5, 1.0])), "entropy") == (0.0, 1.0)


def test_two_sided_and_one_sided_tensors() -> None:
    values = np.random.default_rng(5).normal(size=100_000)
    for method in METHODS:
        low, high = chosen(counted(values), method)
        assert low < -2.0
        assert high > 2.0
        assert chosen(counted(-np.abs(values)), method)[1] == 0.0
        assert chosen(counted(np.abs(values)), method)[0] == 0.0
        low, high = chosen(counted(values + 0.5), method, symmetric=True)
        assert max(-low, high) == high
