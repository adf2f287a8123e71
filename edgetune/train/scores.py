"""How good predictions are, in few figures: what chooses between epochs and between hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.device.heads import Head, columns_of, targets_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

__all__ = ["Scores", "choose_thresholds", "score_heads"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a network reaches on labelled images.

    Attributes:
        loss: of all heads, without label smoothing and class weights.
        score: one number to choose by, larger is better: the mean over heads of top-1 (percent), mean average precision
            (percent) or 100 R².
        metrics: by name with the unit, as `top-1 %`; with the head's name before it where there are several heads.
    """

    loss: float
    score: float
    metrics: dict[str, float]


def score_heads(heads: Sequence[Head], outputs: Array, targets: Array, loss: float) -> Scores:
    """Return the scores of predictions.

    Args:
        heads: in the order of the columns.
        outputs: logits, and values in the units of the data: `[N, C]`.
        targets: `[N, T]`, NaN where not known.
        loss: is handed on.
    """
    metrics: dict[str, float] = {}
    parts = []
    for head, columns, place in zip(heads, columns_of(heads), targets_of(heads), strict=True):
        found, score = _FIGURES[head.kind](head, outputs[:, columns], targets[:, place])
        parts.append(score)
        prefix = "" if len(heads) == 1 else f"{head.name}: "
        metrics |= {f"{prefix}{name}": value for name, value in found.items()}
    return Scores(loss=loss, score=sum(parts) / len(parts), metrics=metrics)


def _single_label(head: Head, outputs: Array, targets: Array) -> tuple[dict[str, float], float]:
    import numpy as np

    labelled = np.isfinite(targets[:, 0])
    if not labelled.any():
        return {"top-1 %": 0.0}, 0.0
    top1 = 100.0 * float((outputs[labelled].argmax(axis=1) == targets[labelled, 0]).mean())
    return {"top-1 %": top1}, top1


def _multi_label(head: Head, outputs: Array, targets: Array) -> tuple[dict[str, float], float]:
    """Return the mean over labels of the average precision, of labels that are present and absent somewhere."""
    import numpy as np
    from sklearn.metrics import average_precision_score

    precisions = []
    for column in range(len(head.columns)):
        labelled = np.isfinite(targets[:, column])
        present = targets[labelled, column] == 1
        if present.any():
            precisions.append(float(average_precision_score(present, outputs[labelled, column])))
    value = 100.0 * sum(precisions) / len(precisions) if precisions else 0.0
    return {"mAP %": value}, value


def _regression(head: Head, outputs: Array, targets: Array) -> tuple[dict[str, float], float]:
    import numpy as np

    metrics, parts = {}, []
    for column, name in enumerate(head.columns):
        labelled = np.isfinite(targets[:, column])
        if not labelled.any():
            continue
        truth = targets[labelled, column].astype(np.float64)
        error = outputs[labelled, column].astype(np.float64) - truth
        power = float(np.square(truth - truth.mean()).sum())
        r2 = 1.0 - float(np.square(error).sum()) / power if power else 0.0
        prefix = "" if len(head.columns) == 1 else f"{name} "
        metrics[f"{prefix}MAE"] = float(np.abs(error).mean())
        metrics[f"{prefix}RMSE"] = float(np.sqrt(np.square(error).mean()))
        metrics[f"{prefix}R²"] = r2
        parts.append(100.0 * r2)
    return metrics, sum(parts) / len(parts) if parts else 0.0


_FIGURES = {"single-label": _single_label, "multi-label": _multi_label, "regression": _regression}


def choose_thresholds(heads: Sequence[Head], outputs: Array, targets: Array) -> tuple[Head, ...]:
    """Return the heads with the threshold of each label that gives the largest F1 on these images.

    A threshold lies in the middle between two probabilities that occur; of equal F1 the one nearest to one half is taken. It is
    one half where a label is never, or always, present.
    """
    import dataclasses

    result = []
    for head, columns, place in zip(heads, columns_of(heads), targets_of(heads), strict=True):
        if head.kind == "multi-label":
            chosen = tuple(_threshold(outputs[:, columns][:, i], targets[:, place][:, i]) for i in range(len(head.columns)))
            head = dataclasses.replace(head, thresholds=chosen)
        result.append(head)
    return tuple(result)


def _threshold(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]) -> float:
    import numpy as np

    labelled = np.isfinite(targets)
    present = targets[labelled] == 1
    if not present.any() or present.all():
        return 0.5
    probabilities = 1.0 / (1.0 + np.exp(-logits[labelled].astype(np.float64)))
    found = np.unique(probabilities)
    candidates = np.concatenate([[0.5], (found[1:] + found[:-1]) / 2])
    order = np.argsort(probabilities)
    # Decided are those from the threshold on: count from the upper end.
    hits = np.concatenate([np.cumsum(present[order][::-1])[::-1], [0]])
    first = np.searchsorted(probabilities[order], candidates, side="left")
    decided = len(order) - first
    f1 = 2 * hits[first] / (decided + present.sum())
    best = np.flatnonzero(f1 == f1.max())
    return float(candidates[best[np.abs(candidates[best] - 0.5).argmin()]])
