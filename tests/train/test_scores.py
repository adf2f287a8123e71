"""The figures that choose between epochs, against scikit-learn and against looking at everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, mean_absolute_error, mean_squared_error, r2_score

from edgetune.device.heads import Head, default_heads
from edgetune.train.scores import choose_thresholds, score_heads

LABELS = Head("parts", "multi-label", ("x", "y", "z"))
VALUES = Head("size", "regression", ("width", "height"))
NAN = np.nan


def columns(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32).T


def test_top1_of_the_known_images() -> None:
    outputs = np.array([[3, 1, 0], [0, 1, 2], [5, 4, 4], [0, 0, 1]], np.float32)
    found = score_heads(default_heads(["a", "b", "c"]), outputs, columns([0, 1, NAN, 2]), 0.5)
    assert (found.metrics, found.loss) == ({"top-1 %": pytest.approx(200 / 3)}, 0.5)
    assert found.score == found.metrics["top-1 %"]


def test_mean_average_precision_is_scikit_learns_over_labels_that_occur() -> None:
    random = np.random.default_rng(0)
    outputs = random.normal(size=(40, 3)).astype(np.float32)
    targets = (random.random((40, 3)) < 0.3).astype(np.float32)
    targets[:, 2] = 0  # Never there: it has no precision.
    targets[:5, 0] = NAN
    expected = [average_precision_score(targets[5:, 0], outputs[5:, 0]), average_precision_score(targets[:, 1], outputs[:, 1])]
    found = score_heads([LABELS], outputs, targets, 0.0)
    assert found.metrics == {"mAP %": pytest.approx(100 * np.mean(expected))}
    assert found.score == found.metrics["mAP %"]


def test_regressions_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    truth = (1000 + 3 * random.normal(size=(30, 2))).astype(np.float32)
    outputs = (truth + random.normal(size=(30, 2))).astype(np.float32)
    hidden = truth.copy()
    hidden[:4, 1] = NAN
    found = score_heads([VALUES], outputs, hidden, 0.0)
    for index, (name, part) in enumerate({"width": slice(None), "height": slice(4, None)}.items()):
        said, is_so = outputs[part, index].astype(float), truth[part, index].astype(float)
        assert found.metrics[f"{name} MAE"] == pytest.approx(mean_absolute_error(is_so, said))
        assert found.metrics[f"{name} RMSE"] == pytest.approx(mean_squared_error(is_so, said) ** 0.5)
        assert found.metrics[f"{name} R²"] == pytest.approx(r2_score(is_so, said))
    assert found.score == pytest.approx(50 * (found.metrics["width R²"] + found.metrics["height R²"]))


def test_a_value_that_never_varies_scores_nothing() -> None:
    found = score_heads([Head("size", "regression", ("size",))], columns([1, 2]), columns([5, 5]), 0.0)
    assert found.metrics == {"MAE": 3.5, "RMSE": pytest.approx(12.5**0.5), "R²": 0.0}
    assert found.score == 0


def test_the_score_is_the_mean_over_heads_and_names_say_whose() -> None:
    heads = [Head("kind", "single-label", ("a", "b")), LABELS, Head("age", "regression", ("age",))]
    outputs = columns([1, 0], [0, 1], [1, -1], [1, -1], [1, -1], [10, 20])
    found = score_heads(heads, outputs, columns([0, 0], [1, 0], [1, 0], [0, 1], [10, 20]), 0.0)
    expected = {"kind: top-1 %": 50.0, "parts: mAP %": pytest.approx(250 / 3)}
    assert found.metrics == {**expected, "age: MAE": 0.0, "age: RMSE": 0.0, "age: R²": 1.0}
    assert found.score == pytest.approx((50 + 250 / 3 + 100) / 3)


@pytest.mark.parametrize(
    "heads", [default_heads(["a", "b"]), [LABELS], [VALUES]], ids=["single-label", "multi-label", "regression"]
)
def test_a_set_without_any_known_target_scores_nothing(heads: list[Head]) -> None:
    width = sum(head.target_width for head in heads)
    found = score_heads(heads, np.zeros((3, len(heads[0].columns)), np.float32), np.full((3, width), NAN, np.float32), 0.0)
    assert found.score == 0
    assert all(value == 0 for value in found.metrics.values())


def threshold(logits: list[float], targets: list[float]) -> float:
    head = Head("one", "multi-label", ("x",))
    (chosen,) = choose_thresholds([head], columns(logits), columns(targets))
    return chosen.thresholds[0]


def test_a_threshold_lies_between_those_that_are_and_those_that_are_not() -> None:
    probabilities = np.array([0.1, 0.2, 0.8, 0.9])
    logits = np.log(probabilities / (1 - probabilities)).tolist()
    assert threshold(logits, [0, 0, 0, 1]) == pytest.approx(0.85)
    assert threshold(logits, [0, 1, 1, 1]) == pytest.approx(0.15)
    assert threshold(logits, [0, 0, 1, 1]) == 0.5  # So does the middle between 0.2 and 0.8; one half is nearest to one half.
    assert threshold(logits, [0, 0, NAN, 1]) == 0.5


@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 1], [NAN, NAN, NAN]])
def test_nothing_to_tell_apart_leaves_one_half(targets: list[float]) -> None:
    assert threshold([-1, 0, 3], targets) == 0.5


@given(st.lists(st.tuples(st.integers(-12, 12), st.sampled_from([0.0, 1.0, NAN])), min_size=2, max_size=25))
def test_no_other_threshold_between_two_probabilities_is_better(pairs: list[tuple[int, float]]) -> None:
    logits, targets = np.array([pair[0] / 3 for pair in pairs]), np.array([pair[1] for pair in pairs])
    known = np.isfinite(targets)
    chosen = threshold(logits.tolist(), targets.tolist())
    if len(set(targets[known])) < 2:
        assert chosen == 0.5
        return
    probabilities = 1 / (1 + np.exp(-logits[known].astype(np.float32).astype(np.float64)))

    def f1(at: float) -> float:
        return float(f1_score(targets[known], probabilities >= at, zero_division=0.0))

    found = np.unique(probabilities)
    others = [0.5, *((found[1:] + found[:-1]) / 2).tolist()]
    best = max(map(f1, others))
    assert f1(chosen) == pytest.approx(best)
    assert abs(chosen - 0.5) <= min(abs(other - 0.5) for other in others if f1(other) >= best - 1e-12) + 1e-12


def test_other_heads_keep_having_no_thresholds() -> None:
    heads = (Head("kind", "single-label", ("a", "b")), LABELS, VALUES)
    outputs = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    targets = np.column_stack([np.zeros(20), outputs[:, 2:5] > 1, outputs[:, 5:]]).astype(np.float32)
    kind, parts, size = choose_thresholds(heads, outputs, targets)
    assert (kind, size) == (heads[0], heads[2])
    assert len(parts.thresholds) == 3
    assert all(0.5 < one < 0.9 for one in parts.thresholds)
