"""What a model decides: from logits to classes and labels, head by head. A regression decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .heads import MULTI_LABEL, SINGLE_LABEL, Head, columns_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]

THRESHOLD = 0.5
"""The probability from which on a label is decided, where training has not chosen another."""


def is_classifier(heads: Sequence[Head]) -> bool:
    """Return whether the only task is to choose one of several classes."""
    return [head.kind for head in heads] == [SINGLE_LABEL]


def sigmoid(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the probability of each label: 1 / (1 + exp(-logit)), of any shape; large logits do not overflow."""
    import numpy as np

    probabilities: npt.NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))
    return probabilities


def thresholds_of(head: Head) -> tuple[float, ...]:
    """Return, per label of a multi-label head, the probability from which on it is decided."""
    return head.thresholds or (THRESHOLD,) * len(head.columns)


def decisions(logits: Logits, head: Head) -> npt.NDArray[np.int64]:
    """Return what one head decides.

    Args:
        logits: `[N, columns]`, of this head alone.
        head: whose they are.

    Returns:
        int64 `[N, D]`: the class (of equals the first), or a 0 or 1 per label; D is 0 for a regression.
    """
    import numpy as np

    if head.kind == SINGLE_LABEL:
        classes: npt.NDArray[np.int64] = logits.argmax(axis=1)[:, None].astype(np.int64)
        return classes
    if head.kind == MULTI_LABEL:
        decided: npt.NDArray[np.int64] = (sigmoid(logits) >= np.array(thresholds_of(head))).astype(np.int64)
        return decided
    return np.zeros((len(logits), 0), np.int64)


def changed(reference: Logits, candidate: Logits, heads: Sequence[Head]) -> npt.NDArray[np.bool_]:
    """Return, for two tables of logits `[N, C]` of the same images, where any head decides otherwise: bool `[N]`."""
    import numpy as np

    result = np.zeros(len(reference), bool)
    for head, columns in zip(heads, columns_of(heads)):
        result |= (decisions(reference[:, columns], head) != decisions(candidate[:, columns], head)).any(axis=1)
    return result
