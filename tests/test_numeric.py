"""Laws of the distance between two tables of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetune.numeric import compare_logits, spread_rows

tables = st.tuples(st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(*[arrays(np.float32, shape, elements=st.floats(-1e6, 1e6, width=32))] * 2)
)


def names(count: int) -> list[str]:
    return [str(index) for index in range(count)]


@given(tables)
def test_laws(pair: tuple[np.ndarray, np.ndarray]) -> None:
    reference, candidate = pair
    same = compare_logits(reference, reference, names(len(reference)))
    assert (same.max_abs, same.nmse, same.top1_agreement_percent) == (0.0, 0.0, 100.0)
    one = compare_logits(reference, candidate, names(len(reference)))
    other = compare_logits(candidate, reference, names(len(reference)))
    assert one.max_abs == other.max_abs
    assert one.worst == other.worst
    assert one.max_abs == np.abs(candidate.astype(float) - reference)[int(one.worst)].max()
    assert 0.0 <= one.top1_agreement_percent <= 100.0
    assert one.nmse >= 0.0


@given(st.floats(0.01, 100.0))
def test_nmse_is_relative(factor: float) -> None:
    reference = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    found = compare_logits(reference, np.float32(factor) * reference, names(2)).nmse
    assert found == pytest.approx((np.float32(factor) - 1.0) ** 2, rel=1e-3, abs=1e-9)


def test_no_number_is_the_worst() -> None:
    reference = np.zeros((3, 2), np.float32)
    candidate = np.array([[5.0, 0.0], [np.nan, 0.0], [9.0, 0.0]], np.float32)
    found = compare_logits(reference, candidate, names(3))
    assert found.worst == "1"
    assert found.max_abs == found.nmse == 1e300


def test_tables_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        compare_logits(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), names(2))
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_logits(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), [])


@given(st.integers(1, 500), st.integers(1, 500))
def test_rows_are_spread(count: int, wanted: int) -> None:
    rows = spread_rows(count, wanted)
    assert len(rows) == min(count, wanted)
    assert rows[0] == 0
    assert rows == sorted(set(rows))
    gaps = np.diff([*rows, count])
    assert gaps.max() - gaps.min() <= 1
