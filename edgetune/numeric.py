"""Numeric parity: how far two implementations of one network are apart on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetune.artefacts import NumericParity
from edgetune.device.decisions import changed, is_classifier
from edgetune.device.heads import MULTI_LABEL, REGRESSION, Head, columns_of, default_heads

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["PLAIN_SESSION", "compare_logits", "divergence", "head_nmse", "on_one_scale", "spread_rows"]

# Stands for what has no finite value: JSON has no infinity.
FARTHEST = 1e300

# How a file is opened here to compare it with what it came from: one thread, so that sums are the same each time.
PLAIN_SESSION = {"providers": ["CPUExecutionProvider"], "graph_optimization": "all", "intra_op_threads": 1}


def compare_logits(
    reference: npt.NDArray[np.float32],
    candidate: npt.NDArray[np.float32],
    names: Sequence[str],
    heads: Sequence[Head] = (),
) -> NumericParity:
    """Return the distance of two tables of logits.

    NMSE = sum (candidate - reference)^2 / sum reference^2, over all images and classes. For other tasks than a single label,
    the columns are brought to one scale first, see `on_one_scale`, and of several heads the largest NMSE counts.

    Args:
        reference: float32 `[N, C]`.
        candidate: float32 `[N, C]`.
        names: of the images, for the worst one.
        heads: what the columns mean; the classes of a classifier unless it is said.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    import numpy as np

    if reference.shape != candidate.shape or not len(reference):
        raise ValueError(f"logits of shapes {reference.shape} and {candidate.shape} cannot be compared")
    heads = heads or default_heads([str(column) for column in range(reference.shape[1])])
    scale = np.ones(reference.shape[1]) if is_classifier(heads) else on_one_scale(reference, heads)[1]
    difference = np.abs(candidate.astype(np.float64) - reference.astype(np.float64)) / scale
    # NaN must win: a comparison with it is the worst there is.
    worst = int(np.argmax(np.where(np.isfinite(difference), difference, np.inf).max(axis=1)))
    finite = bool(np.isfinite(difference).all())
    return NumericParity(
        images=len(reference),
        max_abs=float(difference.max()) if finite else FARTHEST,
        nmse=max(head_nmse(reference, candidate, heads).values()) if finite else FARTHEST,
        top1_agreement_percent=100.0 * float((~changed(reference, candidate, heads)).mean()),
        worst=names[worst],
    )


def on_one_scale(
    reference: npt.NDArray[np.float32], heads: Sequence[Head]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the centre and the scale of each column of logits: float64 `[C]` each; (logits - centre) / scale has no unit.

    Heads of classes or labels are divided by their largest logit, a regression is standardised: its values may have any unit
    and lie far from zero, and must neither drown the other heads' logits nor be drowned by them.

    Args:
        reference: float32 `[N, C]`; images without finite logits are left out.
        heads: what the columns mean.
    """
    import numpy as np

    usable = reference[np.isfinite(reference).all(axis=1)].astype(np.float64)
    centre, scale = np.zeros(reference.shape[1]), np.ones(reference.shape[1])
    for head, columns in zip(heads, columns_of(heads), strict=True):
        part = usable[:, columns]
        if head.kind == REGRESSION and len(part):
            centre[columns], scale[columns] = part.mean(axis=0), part.std(axis=0)
        elif len(part):
            scale[columns] = np.abs(part).max()
    # What never varies has no scale of its own.
    scale[scale == 0] = 1.0
    return centre, scale


def head_nmse(
    reference: npt.NDArray[np.float32], candidate: npt.NDArray[np.float32], heads: Sequence[Head]
) -> dict[str, float]:
    """Return, per head's name, the squared difference over the squared reference, of finite logits `[N, C]` on one scale."""
    import numpy as np

    centre, scale = on_one_scale(reference, heads)
    wanted = (reference.astype(np.float64) - centre) / scale
    errors = (candidate.astype(np.float64) - reference.astype(np.float64)) / scale
    result = {}
    for head, columns in zip(heads, columns_of(heads), strict=True):
        energy = float(np.square(wanted[:, columns]).sum())
        error = float(np.square(errors[:, columns]).sum())
        # Beside logits that are all zero, any error is as large as errors get.
        result[head.name] = min(error / energy if energy else FARTHEST * (error > 0), FARTHEST)
    return result


def divergence(reference: npt.NDArray[np.float32], candidate: npt.NDArray[np.float32], heads: Sequence[Head]) -> float:
    """Return how far a model's answers are from the reference's, in nats: the mean over images, the sum over heads.

    A head with a single label: KL(softmax(reference) || softmax(candidate)). Of several labels: the sum over labels of the KL
    divergence of each one's probability. A regression: half the squared error over the values' variance, the KL divergence of
    two normal distributions of that variance.

    Args:
        reference: float32 `[N, C]`, finite.
        candidate: the same; infinite answers are infinitely far.
        heads: what the columns mean.
    """
    import numpy as np

    if not np.isfinite(candidate).all():
        return FARTHEST
    total = 0.0
    _, scale = on_one_scale(reference, heads)
    for head, columns in zip(heads, columns_of(heads), strict=True):
        ours, theirs = candidate[:, columns].astype(np.float64), reference[:, columns].astype(np.float64)
        if head.kind == REGRESSION:
            total += float(0.5 * np.square((ours - theirs) / scale[columns]).sum(axis=1).mean())
            continue
        if head.kind == MULTI_LABEL:
            # A label is a choice between two, with logits z and 0.
            ours, theirs = (np.stack([one, np.zeros_like(one)], axis=-1) for one in (ours, theirs))
        ours, theirs = _log_softmax(ours), _log_softmax(theirs)
        total += float((np.exp(theirs) * (theirs - ours)).sum(axis=tuple(range(1, ours.ndim))).mean())
    return total


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the logarithms of the probabilities along the last axis."""
    import numpy as np

    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def spread_rows(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` row numbers of `count`, evenly spread, the first one included."""
    if wanted >= count:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]
