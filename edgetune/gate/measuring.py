"""What the device is asked: the logits of both models on the same images, then pairs of fresh processes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.gate.images import Labelled
from edgetune.gate.sides import Side
from edgetune.profile import device_mismatches, honoured
from edgetune.progress import Progress
from edgetune.verify.pairs import LOOKS, QUICK_LOOKS, Pair, Timed, timed
from edgetune.verify.targets.interface import EvalRequest, ModelRequest, PairsRequest, Request, Target

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Answers", "Device", "restless_reasons"]

BLOCK_MS = 8.0
"""A block of queries lasts about so long: shorter ones drown in the switch from one process to the other."""
FEWEST, MOST = 5, 64
"""Queries in a block; 24 blocks make 120 at least."""
QUICK_BLOCKS = 8
TIMED_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model answered.

    Attributes:
        logits: float32 `[N, C]`.
        finite: whether all are numbers.
        constant: whether they do not depend on the image.
        query_ms: about how long one image took.
    """

    logits: npt.NDArray[np.float32]
    finite: bool
    constant: bool
    query_ms: float


@dataclass(kw_only=True)
class Device:
    """The device in this session.

    Attributes:
        target: how it is reached.
        folder: for what it answers.
        progress: told what goes on.
        environment: of the device, before; its condition after the last request stands in `after`.
    """

    target: Target
    folder: Path
    progress: Progress
    environment: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    requests: int = 0

    def meet(self) -> None:
        """Read what the device is.

        Raises:
            TargetError: it cannot be reached, or has no ONNX Runtime.
        """
        self.environment = self.target.environment()

    @property
    def where(self) -> str:
        """The device and the runtime, in words."""
        name = self.environment.get("name") or self.environment["architecture"]
        cores, runtime = self.environment["cores"], self.environment["onnxruntime"]
        return f"{self.target.describe()}, {name}, {cores} cores, ONNX Runtime {runtime}"

    def strangeness(self, side: Side) -> str:
        """Return why this device is not the one that a bundle was built for, in words; empty if it is or nothing is said."""
        promised = side.manifest.get("profile")
        if promised is None:
            return ""
        reasons = device_mismatches(
            self.environment,
            architecture=promised["architecture"],
            features=promised["features"],
            absent=promised["absent"],
            provider=side.session["providers"][0],
            min_onnxruntime=promised["min_onnxruntime"],
        )
        return "; ".join(reasons)

    def session(self, side: Side) -> dict[str, Any]:
        """Return how a side's model is opened here: as on its board, but with no more threads than there are cores."""
        return honoured(side.session, self.environment)[0]

    def answers(self, side: Side, images: Labelled) -> Answers:
        """Return a model's logits on images.

        Raises:
            TargetError: its provider is not available, or the runner died.
            ArtefactError: the answer is not what a runner writes.
        """
        request = Request(
            models=(_model(side),), session=self.session(side), eval=EvalRequest(images=images.path), footprint=False
        )
        raw, folder = self.measured(request)
        told = raw["models"][side.name]["eval"]
        logits = np.array(np.load(folder / f"logits-{side.name}.npy", allow_pickle=False))
        query_ms = 1000 * told["seconds"] / max(told["images"], 1)
        return Answers(logits=logits, finite=told["finite"], constant=told["constant"], query_ms=query_ms)

    def query_ms(self, side: Side) -> float:
        """Return about how long one query takes, where no images were run: the first one, which is slower than the others.

        Raises:
            TargetError: see `answers`.
        """
        raw, _ = self.measured(Request(models=(_model(side),), session=self.session(side)))
        return float(raw["models"][side.name]["footprint"]["first_inference_ms"])

    def timed(
        self, baseline: Side, candidate: Side, images: Labelled | None, query_ms: float, tolerance_percent: float, quick: bool
    ) -> Timed:
        """Return pairs of processes: of the baseline with itself first, then of both; see `edgetune.verify.pairs`.

        Args:
            baseline: what was accepted.
            candidate: what is to take its place.
            images: for the queries, where they fit both models; None for noise.
            query_ms: about how long one query takes.
            tolerance_percent: of the latency.
            quick: few pairs: a look, not a measurement.
        """
        queries = min(MOST, max(FEWEST, math.ceil(BLOCK_MS / max(query_ms, BLOCK_MS / MOST))))
        pictures = None if images is None else EvalRequest(images=images.path, limit=TIMED_IMAGES)
        looks = QUICK_LOOKS if quick else LOOKS
        restless: dict[str, None] = {}

        def measure(both: bool, first: int, count: int) -> Sequence[Pair]:
            other = candidate if both else baseline
            plan = PairsRequest(
                models=(baseline.name, other.name),
                sessions=(self.session(baseline), self.session(other)),
                pairs=count,
                first=first,
                queries_per_block=queries,
                **({"blocks": QUICK_BLOCKS} if quick else {}),
            )
            models = (_model(baseline), _model(candidate)) if both else (_model(baseline),)
            began = time.monotonic()
            request = Request(models=models, session=self.session(baseline), eval=pictures, footprint=False, pairs=plan)
            raw, _ = self.measured(request)
            restless.update(dict.fromkeys(restless_reasons(raw)))
            what = "baseline against candidate" if both else "baseline against itself"
            self.progress.line(f"{what}: {first + count} pairs of processes, {time.monotonic() - began:.0f} s")
            found: Sequence[Pair] = raw["pairs"]["pairs"]
            return found

        result = timed(measure, tolerance_percent, looks)
        return Timed(control=result.control, pairs=result.pairs, alpha=result.alpha, restless="; ".join(restless))

    def measured(self, request: Request) -> tuple[dict[str, Any], Path]:
        """Return the device's answer to a request, and the folder where it lies.

        Raises:
            TargetError: as `Target.measure`.
            ArtefactError: likewise.
        """
        self.requests += 1
        folder = self.folder / f"{self.requests:02}"
        raw = self.target.measure(request, folder, self.progress)
        self.after = raw["environment_after"]
        return raw, folder


def _model(side: Side) -> ModelRequest:
    return ModelRequest(name=side.name, path=side.path, sha256=side.shown.model_sha256)


def restless_reasons(raw: dict[str, Any]) -> list[str]:
    """Return what makes times worthless that comparing side by side does not cure."""
    before, after = raw["environment"], raw["environment_after"]
    reasons = []
    if before.get("governor") != after.get("governor"):
        reasons.append(f"the frequency governor changed from {before.get('governor')} to {after.get('governor')}")
    if before.get("throttled") or after.get("throttled"):
        reasons.append("the processor was slowed down by heat or a weak supply")
    return reasons
