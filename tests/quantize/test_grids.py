"""Laws of grids: of activations and of weights."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgetune.quantize.graph import integer_limits
from edgetune.quantize.histogram import SMALLEST_RANGE
from edgetune.quantize.ranges import make_grid
from edgetune.quantize.weights import to_grid

ends = st.floats(0.0, 1e4, width=32)
kinds = st.sampled_from(["uint8", "int8"])


@given(ends, ends, kinds, st.booleans())
def test_a_grid_covers_its_range_and_holds_zero(below: float, above: float, kind: str, symmetric: bool) -> None:
    grid = make_grid(-below, above, kind, symmetric=symmetric)
    low, high = integer_limits(kind)
    assert grid.scale > 0
    assert low <= grid.zero_point <= high
    # Rounding the zero point moves both ends by half a step at most.
    assert (low - grid.zero_point) * grid.scale <= -below + 0.501 * grid.scale
    assert (high - grid.zero_point) * grid.scale >= above - 0.501 * grid.scale


@given(ends, ends, ends, ends, kinds)
def test_no_integer_lies_outside_the_clamp(below: float, above: float, low: float, high: float, kind: str) -> None:
    grid = make_grid(-min(below, low), min(above, high), kind, symmetric=False, limits=(-low, high))
    smallest, largest = integer_limits(kind)
    scale = np.float32(grid.scale)
    assert grid.scale > 0
    # A clamp that lets nothing through has no grid of its own.
    if high >= SMALLEST_RANGE:
        assert np.float32(largest - grid.zero_point) * scale <= np.float32(high)
    if low >= SMALLEST_RANGE:
        assert np.float32(smallest - grid.zero_point) * scale >= -np.float32(low)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["int8", "uint8"]), st.booleans(), st.booleans(), st.sampled_from([0, 1]))
def test_weights_are_rounded_to_the_nearest(seed: int, kind: str, per_channel: bool, reduce_range: bool, axis: int) -> None:
    weight = np.random.default_rng(seed).normal(0.0, 0.1, (5, 4)).astype(np.float32)
    grid = to_grid(weight, axis, kind=kind, per_channel=per_channel, reduce_range=reduce_range)
    scale = np.expand_dims(grid.scale, 1 - axis) if per_channel else grid.scale
    restored = (grid.values.astype(np.float64) - grid.zero_point) * scale
    assert (np.abs(restored - weight) <= 0.5001 * scale).all()
    assert np.abs(grid.values.astype(int) - grid.zero_point).max() == (63 if reduce_range else 127)
