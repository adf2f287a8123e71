"""Laws of the distance between two tables of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetune.device.heads import Head
from edgetune.numeric import compare_logits, head_nmse, on_one_scale, spread_rows

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


TASKS = (
    Head("colour", "single-label", ("red", "blue")),
    Head("tags", "multi-label", ("dog",), (0.5,)),
    Head("year", "regression", ("year",)),
)


def table() -> np.ndarray:
    """Logits of two classes, of a label, and a year whose standard deviation is 10: float32 `[4, 4]`."""
    return np.array([[4, -1, 2, 2000], [-1, 4, -2, 2020], [4, -1, 2, 2000], [-1, 4, -2, 2020]], np.float32)


def test_heads_of_unlike_units_are_compared_on_one_scale() -> None:
    centre, scale = on_one_scale(table(), TASKS)
    assert centre.tolist() == [0, 0, 0, 2010]
    assert scale.tolist() == [4, 4, 2, 10]
    later = table()
    later[1, 3] += 1
    found = compare_logits(table(), later, names(4), TASKS)
    assert (found.max_abs, found.worst, found.top1_agreement_percent) == (pytest.approx(0.1), "1", 100.0)
    # One of four standardised values, whose squares sum to 4, is 0.1 off.
    assert found.nmse == pytest.approx(0.01 / 4)
    assert head_nmse(table(), later, TASKS) == {"colour": 0.0, "tags": 0.0, "year": pytest.approx(0.01 / 4)}


def test_a_small_error_of_a_large_value_does_not_hide_a_wrong_class() -> None:
    wrong = table()
    wrong[2, :2] = wrong[2, 1::-1]
    wrong[3, 2] = 1
    found = compare_logits(table(), wrong, names(4), TASKS)
    assert found.top1_agreement_percent == 50.0
    assert found.max_abs == pytest.approx(3 / 2)
    assert found.worst == "3"
    assert found.nmse == head_nmse(table(), wrong, TASKS)["colour"] == pytest.approx(2 * 25 / (4 * 17))


def test_a_regression_decides_nothing() -> None:
    values = np.arange(6, dtype=np.float32)[:, None]
    found = compare_logits(values, values + 1, names(6), (Head("age", "regression", ("age",)),))
    assert found.top1_agreement_percent == 100.0
    assert found.max_abs == pytest.approx(1 / values.std())
