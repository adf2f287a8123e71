from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetune.verify.metrics import calibration_error, figures, softmax

logits = arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(2, 8)), elements=st.floats(-1e4, 1e4, width=32))


def test_figures_of_a_table_counted_by_hand():
    decided = np.array([0, 0, 1, 1, 1, 2])
    labels = np.array([0, 0, 0, 1, 1, 1])
    result = figures(np.eye(3, dtype=np.float32)[decided], labels, ["cat", "dog", "unseen"])
    assert result.images == 6
    assert result.top1_percent == pytest.approx(100 * 4 / 6)
    assert result.top5_percent is None
    assert result.confusion == ((2, 1, 0), (0, 2, 1), (0, 0, 0))
    assert result.per_class["cat"] == {
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "images": 3.0,
    }
    assert result.per_class["unseen"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "images": 0.0}
    assert result.recall_macro == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_top5_counts_labels_among_the_five_largest_logits():
    ordered = np.tile(np.arange(6, 0, -1, dtype=np.float32), (6, 1))
    assert figures(ordered, np.arange(6), list("abcdef")).top5_percent == pytest.approx(100 * 5 / 6)


def test_calibration_error_of_two_bins_by_hand():
    # Ten decisions at confidence 0.8 with 6 right, ten at 0.6 with 6 right: (0.5 · 0.2) + (0.5 · 0.0).
    confidence = np.repeat([0.8, 0.6], 10)
    values = np.log(np.stack([confidence, 1 - confidence], axis=1)).astype(np.float32)
    labels = np.tile([0, 0, 0, 0, 0, 0, 1, 1, 1, 1], 2)
    assert calibration_error(values, labels) == pytest.approx(0.1, abs=1e-6)


@given(logits)
def test_softmax_gives_probabilities_in_the_order_of_the_logits(values):
    probabilities = softmax(values)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx(1)
    decided = np.take_along_axis(probabilities, values.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert (decided == probabilities.max(axis=1)).all()


@given(logits)
def test_calibration_error_is_between_no_and_full_error(values):
    assert 0 <= calibration_error(values, np.zeros(len(values), dtype=np.int64)) <= 1 + 1e-12


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_logits_that_are_not_numbers_are_refused(spoilt):
    with pytest.raises(ValueError, match="not numbers"):
        figures(np.array([[0.0, spoilt]], dtype=np.float32), np.array([0]), ["a", "b"])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\) for 1 labels and 2 classes"):
        figures(np.zeros((2, 2), dtype=np.float32), np.array([0]), ["a", "b"])
