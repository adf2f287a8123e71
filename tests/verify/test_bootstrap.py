from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from edgetune.verify.bootstrap import (
    RESAMPLES,
    average_precisions,
    bounds,
    judged_change,
    mean_precisions,
    resampled,
    rmses,
)

ranked = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30)


@given(ranked)
def test_average_precision_of_weighed_images_is_scikit_learns(images):
    scores, truth, weight = (np.array(column) for column in zip(*images, strict=True))
    found = average_precisions(scores.astype(np.float32), truth, weight[:, None].astype(np.float32))
    if not (weight * truth).sum():
        assert np.isnan(found[0])
    else:
        assert found[0] == pytest.approx(average_precision_score(truth, scores, sample_weight=weight), abs=1e-6)


def test_the_mean_over_labels_leaves_out_what_is_not_known_and_labels_that_no_image_has():
    # Positives at ranks 1 and 3 of 4: AP = (1/1 + 2/3) / 2; of the second label the image that spoils it is not known.
    logits = np.array([[4, 9, 1], [3, 2, 2], [2, 1, 3], [1, 0, 4]], np.float32)
    targets = np.array([[1, np.nan, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    found = mean_precisions(logits, targets, np.ones((4, 1), np.float32))
    assert found[0] == pytest.approx((5 / 6 + 1) / 2)


def test_weights_are_how_often_an_image_was_drawn_and_the_same_each_time():
    weights = []
    resampled(lambda drawn: weights.append(drawn) or drawn[0].astype(np.float64), 7)
    again = []
    resampled(lambda drawn: again.append(drawn) or drawn[0].astype(np.float64), 7)
    assert weights[0].shape == (7, RESAMPLES)
    assert (weights[0].sum(axis=0) == 7).all()
    assert (weights[0] == again[0]).all()


def test_samples_of_many_images_come_in_parts():
    parts = []
    found = resampled(lambda drawn: parts.append(drawn.shape) or drawn[0].astype(np.float64), 30_000)
    assert len(parts) > 1
    assert sum(count for _, count in parts) == len(found) == RESAMPLES


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(3).normal(5, 2, 400)
    low, high = bounds(resampled(lambda drawn: values @ drawn.astype(np.float64) / 400, 400))
    half = 1.645 * values.std() / 20
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.02), pytest.approx(values.mean() + half, abs=0.02))


def test_a_family_lowers_only_the_lower_bound_and_missing_figures_are_left_out():
    samples = np.concatenate([np.arange(1000.0), np.full(50, np.nan)])
    assert bounds(samples) == (pytest.approx(49.95), pytest.approx(949.05))
    assert bounds(samples, family=5) == (pytest.approx(9.99), pytest.approx(949.05))


def test_rmse_of_weighed_images_without_those_that_are_not_known():
    squared = np.array([[1.0, 4.0, np.nan], [9.0, np.nan, np.nan]])
    found = rmses(squared, np.array([[1, 3, 0], [1, 1, 0], [5, 5, 1]], np.float32))
    assert found[0] == pytest.approx([np.sqrt(2.5), np.sqrt(7 / 4), np.nan], nan_ok=True)
    assert found[1] == pytest.approx([3.0, 3.0, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("growth", "images", "fewest", "verdict"),
    [
        (0.5, 100, 30, "KEPT"),
        (1.5, 100, 30, "BROKEN"),
        (1.0, 100, 30, "INCONCLUSIVE"),
        (0.5, 100, 299, "INCONCLUSIVE"),
        (1.5, 100, 299, "BROKEN"),
        (1.5, 29, 1, "INCONCLUSIVE"),
    ],
)
def test_verdicts(growth, images, fewest, verdict):
    samples = growth + np.linspace(-0.2, 0.2, RESAMPLES)
    found = judged_change(growth, samples, 1.0, images=images, fewest=fewest)
    assert (found.verdict, bool(found.reason)) == (verdict, verdict != "KEPT")
    assert (found.low, found.high) == (pytest.approx(growth - 0.18), pytest.approx(growth + 0.18))
