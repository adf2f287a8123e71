"""What int8 files are worth beside the fp32 file that they come from: decisions, distances of logits, latency in turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetune.artefacts import Dataset
from edgetune.device.latency import LatencyPlan, measure_latency
from edgetune.device.session import open_session
from edgetune.numeric import PLAIN_SESSION, compare_logits
from edgetune.profile import Runtime
from edgetune.quantize.proof import optimised_graph
from edgetune.verify.statistics import hodges_lehmann

__all__ = ["Accuracy", "Ratio", "accuracy", "kl_divergence", "latencies", "logits_of", "ratio", "runs_as"]

Logits = npt.NDArray[np.float32]
AT_ONCE = 32
"""Images per run, where time does not matter."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How an int8 file decides, on the test images.

    Attributes:
        top1_percent: right decisions.
        agreement_percent: decisions that are fp32's.
        kl_nats: the mean over images of KL(fp32 || int8), of the softmax of the logits.
        nmse: squared difference of the logits over the squared logits of fp32.
        lost: images that only fp32 decides rightly.
        gained: images that only int8 decides rightly.
    """

    top1_percent: float
    agreement_percent: float
    kl_nats: float
    nmse: float
    lost: int
    gained: int


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A latency over another, from rounds that took turns: the Hodges-Lehmann estimate with one-sided 95 % bounds.

    Attributes:
        estimate: below 1, the first is faster.
        low: None where too few rounds say nothing.
        high: likewise.
        rounds: how many pairs it rests on.
    """

    estimate: float
    low: float | None
    high: float | None
    rounds: int

    def __str__(self) -> str:
        """Return `0.61 [0.60, 0.62]`."""
        low, high = ("?" if bound is None else f"{bound:.3f}" for bound in (self.low, self.high))
        return f"{self.estimate:.3f} [{low}, {high}]"


def logits_of(path: Path, images: npt.NDArray[np.uint8]) -> Logits:
    """Return a file's logits, with ONNX Runtime's default optimisations: float32 `[N, C]`.

    Raises:
        RunnerError: the file cannot be opened, or does not keep the contract.
    """
    session = open_session(path, PLAIN_SESSION)
    parts = [images[first : first + AT_ONCE] for first in range(0, len(images), AT_ONCE)]
    return np.concatenate([session.run(["logits"], {"image": np.ascontiguousarray(part)})[0] for part in parts])


def kl_divergence(reference: Logits, candidate: Logits) -> float:
    """Return the mean over images of KL(softmax(reference) || softmax(candidate)) in nats.

    Args:
        reference: `[N, C]`.
        candidate: `[N, C]`.
    """
    p, q = (_log_softmax(logits.astype(np.float64)) for logits in (reference, candidate))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def accuracy(reference: Logits, candidate: Logits, dataset: Dataset, rows: Sequence[int]) -> Accuracy:
    """Return how a file decides beside fp32.

    Args:
        reference: fp32's logits of the rows.
        candidate: the file's.
        dataset: knows the labels.
        rows: of the test split.
    """
    labels, names = np.asarray(dataset.labels("test"))[list(rows)], dataset.names("test")
    right32, right8 = (logits.argmax(axis=1) == labels for logits in (reference, candidate))
    parity = compare_logits(reference, candidate, [names[row] for row in rows], dataset.heads)
    return Accuracy(
        top1_percent=100 * float(right8.mean()),
        agreement_percent=parity.top1_agreement_percent,
        kl_nats=kl_divergence(reference, candidate),
        nmse=parity.nmse,
        lost=int((right32 & ~right8).sum()),
        gained=int((right8 & ~right32).sum()),
    )


def runs_as(path: Path, runtime: Runtime) -> dict[str, Any]:
    """Return what the runtime makes of a file: its operators, float layers, and why conversions are left."""
    proof = optimised_graph(path, runtime)
    return {
        "operators": proof.operators,
        "float_layers": list(proof.float_layers),
        "conversions": proof.reasons(),
        "size_bytes": path.stat().st_size,
    }


def latencies(paths: Mapping[str, Path], images: npt.NDArray[np.uint8], plan: LatencyPlan) -> dict[str, dict[str, Any]]:
    """Return the latency of each file at batch 1 on one thread, all taking turns in this process.

    Args:
        paths: the files by name.
        images: uint8 `[N, H, W, K]`.
        plan: how much to measure.
    """
    return measure_latency({name: open_session(path, PLAIN_SESSION) for name, path in paths.items()}, images, plan)


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Return the first latency of pairs from one round over the second.

    Args:
        pairs: medians of the same round, in one unit; at least one pair.
    """
    shift = hodges_lehmann([math.log(first / second) for first, second in pairs])
    low, high = (math.exp(bound) if math.isfinite(bound) else None for bound in (shift.low, shift.high))
    return Ratio(estimate=math.exp(shift.estimate), low=low, high=high, rounds=shift.pairs)
