"""What a model achieves on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgetune.artefacts import Figures, Measurement

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]

__all__ = ["calibration_error", "figures", "figures_of_measurement", "softmax"]

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


def figures_of_measurement(measurement: Measurement, labels: Labels, classes: Sequence[str]) -> dict[str, Figures]:
    """Return the figures of each measured model, by name; a model whose logits are not numbers has none.

    Args:
        measurement: with logits of every model.
        labels: of the images measured, in their order; see `edgetune.verify.stage.measured_labels`.
        classes: the names of the classes.
    """
    return {
        name: figures(measurement.logits(name), labels, classes)
        for name, model in measurement.raw["models"].items()
        if model["eval"] and model["eval"]["finite"]
    }
