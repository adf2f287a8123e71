"""What a model achieves on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgetune.artefacts import Figures, HeadFigures, Measurement, MultiLabelFigures, RegressionFigures, TaskFigures
from edgetune.device.decisions import decisions, is_classifier, thresholds_of
from edgetune.device.heads import MULTI_LABEL, SINGLE_LABEL, Head, columns_of, targets_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]
    Targets = npt.NDArray[np.float32]
    Parts = dict[str, float | None]

__all__ = ["calibration_error", "figures", "figures_of_measurement", "head_figures", "softmax", "task_figures"]

BINS = 15
TOP = 5


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the probabilities of each row: float64 `[N, C]`; large logits do not overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponents = np.exp(shifted)
    probabilities: npt.NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities


def calibration_error(logits: Logits, labels: Labels) -> float:
    """Return the expected calibration error: the mean distance of confidence from accuracy, 0 to 1.

    Decisions are sorted by confidence into 15 bins of equal width ((k - 1)/15, k/15]; ECE = Σ |B|/N · |acc(B) - conf(B)|
    (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3).
    """
    probabilities = softmax(logits)
    confidence = probabilities.max(axis=1)
    correct = logits.argmax(axis=1) == labels
    bins = np.ceil(confidence * BINS).astype(np.int64)
    # |B|/N cancels the means' denominator, so that empty bins need no special case.
    gap = np.bincount(bins, weights=correct - confidence, minlength=BINS + 1)
    return float(np.abs(gap).sum() / len(labels))


def figures(logits: Logits, labels: Labels, classes: Sequence[str]) -> Figures:
    """Return what a model achieves, by scikit-learn.

    A class that is never decided has precision 0. Of equal logits the first counts as the decision.

    Args:
        logits: float32 `[N, C]`, all finite.
        labels: int64 `[N]`, each below C.
        classes: the C names.

    Raises:
        ValueError: shapes that do not fit, no images, or logits that are not numbers.
    """
    if logits.shape != (len(labels), len(classes)) or not len(labels):
        raise ValueError(f"got logits {logits.shape} for {len(labels)} labels and {len(classes)} classes")
    if not np.isfinite(logits).all():
        raise ValueError("logits that are not numbers have no accuracy")
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

    indices = np.arange(len(classes))
    decisions = logits.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, decisions, labels=indices, zero_division=0)
    top5 = 100 * float(top_k_accuracy_score(labels, logits, k=TOP, labels=indices)) if len(classes) > TOP else None
    return Figures(
        images=len(labels),
        top1_percent=100 * float((decisions == labels).mean()),
        top5_percent=top5,
        precision_macro=float(precision.mean()),
        recall_macro=float(recall.mean()),
        f1_macro=float(f1.mean()),
        ece=calibration_error(logits, labels),
        per_class={
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "images": float(support[i]),
            }
            for i, name in enumerate(classes)
        },
        confusion=tuple(tuple(int(n) for n in row) for row in confusion_matrix(labels, decisions, labels=indices)),
    )


def figures_of_measurement(
    measurement: Measurement, targets: Targets, heads: Sequence[Head]
) -> dict[str, Figures | TaskFigures]:
    """Return the figures of each measured model, by name; a model whose logits are not numbers has none.

    Args:
        measurement: with logits of every model.
        targets: of the images measured, in their order; see `edgetune.verify.stage.measured_targets`.
        heads: what the columns of logits and targets mean.
    """
    return {
        name: task_figures(measurement.logits(name), targets, heads)
        for name, model in measurement.raw["models"].items()
        if model["eval"] and model["eval"]["finite"]
    }


def task_figures(logits: Logits, targets: Targets, heads: Sequence[Head]) -> Figures | TaskFigures:
    """Return what a model achieves: `Figures` of a classifier, else those of each head that anything is known of.

    Args:
        logits: float32 `[N, C]`, all finite.
        targets: float32 `[N, T]`; NaN where not known. What is not known is left out: images of a single label, else single
            labels or values of an image.
        heads: what the columns mean.

    Raises:
        ValueError: shapes that do not fit, no images, or logits that are not numbers.
    """
    columns, places = columns_of(heads), targets_of(heads)
    if logits.shape != (len(targets), columns[-1].stop) or targets.shape[1:] != (places[-1].stop,) or not len(targets):
        raise ValueError(f"got logits {logits.shape} and targets {targets.shape} for heads of {columns[-1].stop} columns")
    if not np.isfinite(logits).all():
        raise ValueError("logits that are not numbers have no accuracy")
    if is_classifier(heads):
        return figures(logits, targets[:, 0].astype(np.int64), heads[0].columns)
    parts = zip(heads, columns, places, strict=True)
    found = {head.name: head_figures(head, logits[:, part], targets[:, place]) for head, part, place in parts}
    return TaskFigures(heads={name: one for name, one in found.items() if one is not None})


def head_figures(head: Head, logits: Logits, targets: Targets) -> HeadFigures | None:
    """Return what one head achieves; None if nothing is known of it.

    Args:
        head: which one.
        logits: float32 `[N, columns]`, of this head alone.
        targets: float32 `[N, width]`, likewise; NaN where not known.
    """
    known = np.isfinite(targets).any(axis=1)
    if not known.any():
        return None
    logits, targets = logits[known], targets[known]
    if head.kind == SINGLE_LABEL:
        return figures(logits, targets[:, 0].astype(np.int64), head.columns)
    return _multi_label(head, logits, targets) if head.kind == MULTI_LABEL else _regression(head, logits, targets)


def _multi_label(head: Head, logits: Logits, targets: Targets) -> MultiLabelFigures:
    """Return the figures of several labels, by scikit-learn; a label that is never decided has precision 0."""
    decided, known = decisions(logits, head) == 1, np.isfinite(targets)
    per_label = {
        name: _label(logits[known[:, i], i], decided[known[:, i], i], targets[known[:, i], i] == 1, threshold)
        for i, (name, threshold) in enumerate(zip(head.columns, thresholds_of(head), strict=True))
    }
    present = [one for one in per_label.values() if one["positives"]]
    wrong = (decided != (targets == 1)) & known
    hits = int((decided & (targets == 1) & known).sum())
    return MultiLabelFigures(
        images=len(targets),
        map_percent=100 * _mean([one["ap"] for one in present]) if present else None,
        f1_macro=_mean([one["f1"] for one in present]) if present else None,
        # F1 = 2 TP / (2 TP + FP + FN); 0 where there is neither a positive nor a decision.
        f1_micro=2 * hits / (2 * hits + int(wrong.sum()) or 1),
        exact_percent=100 * float((~wrong.any(axis=1)).mean()),
        hamming_percent=100 * float(wrong.sum() / known.sum()),
        per_label=per_label,
    )


def _label(scores: Logits, decided: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], threshold: float) -> Parts:
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    precision = recall = f1 = 0.0
    if len(truth):
        found = precision_recall_fscore_support(truth, decided, average="binary", zero_division=0)
        precision, recall, f1 = (float(value) for value in found[:3])
    return {
        "images": float(len(truth)),
        "positives": float(truth.sum()),
        "ap": float(average_precision_score(truth, scores)) if truth.any() else None,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "threshold": threshold,
    }


def _regression(head: Head, answers: Logits, targets: Targets) -> RegressionFigures:
    """Return the figures of values; one that is known of no image is left out."""
    known = np.isfinite(targets)
    per_value = {
        name: _value(answers[known[:, i], i].astype(np.float64), targets[known[:, i], i].astype(np.float64))
        for i, name in enumerate(head.columns)
        if known[:, i].any()
    }
    parts = list(per_value.values())
    varying = [one["r2"] for one in parts if one["r2"] is not None]
    return RegressionFigures(
        images=len(targets),
        mae=_mean([one["mae"] for one in parts]),
        rmse=_mean([one["rmse"] for one in parts]),
        r2=_mean(varying) if varying else None,
        per_value=per_value,
    )


def _value(answers: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> Parts:
    error, std = answers - truth, float(truth.std())
    squared = float(np.square(error).mean())
    return {
        "images": float(len(truth)),
        "mae": float(np.abs(error).mean()),
        "rmse": squared**0.5,
        "r2": 1 - squared / std**2 if std else None,
        "bias": float(error.mean()),
        "std": std,
    }


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))
