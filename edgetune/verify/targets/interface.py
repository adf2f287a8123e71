"""What a target does: say what it is, and run the runner on a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from edgetune.artefacts import Preprocessing
from edgetune.progress import Progress

__all__ = [
    "EvalRequest",
    "LatencyRequest",
    "ModelRequest",
    "OperatorsRequest",
    "PairsRequest",
    "Request",
    "Target",
    "ThroughputRequest",
    "TrialsRequest",
]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelRequest(_Value):
    """One model to measure.

    Attributes:
        name: what the answer calls it; the first model of a request is the baseline.
        path: of the ONNX file on this machine.
        sha256: that the file must have.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    path: Path
    sha256: str


class EvalRequest(_Value):
    """The images whose logits are wanted.

    Attributes:
        images: an .npy file, uint8 `[N, H, W, K]`.
        limit: how many of them, from the first; None for all.
    """

    images: Path
    limit: int | None = None


class LatencyRequest(_Value):
    """How batch-1 latency is measured, the models taking turns; see `edgetune.device.latency.LatencyPlan`."""

    warmup: int = Field(default=20, ge=0)
    rounds: int = Field(default=16, ge=2)
    queries_per_round: int = Field(default=64, ge=1)
    max_seconds: float = Field(default=60.0, ge=0.0)
    min_seconds: float = Field(default=0.0, ge=0.0)
    period_seconds: float = Field(default=0.0, ge=0.0)


class PairsRequest(_Value):
    """Two models, or one twice, in pairs of fresh processes; see `edgetune.device.pairs`.

    Attributes:
        models: their names.
        sessions: how ONNX Runtime is opened for each.
        pairs: how many.
        first: the number of the first one.
        warmup: queries of each process that do not count.
        blocks: how often the two take turns.
        queries_per_block: of each process in a block.
    """

    models: tuple[str, str]
    sessions: tuple[dict[str, Any], dict[str, Any]]
    pairs: int = Field(default=10, ge=1)
    first: int = Field(default=0, ge=0)
    warmup: int = Field(default=20, ge=0)
    blocks: int = Field(default=24, ge=1)
    queries_per_block: int = Field(default=16, ge=1)


class OperatorsRequest(_Value):
    """The model to profile operator by operator; see `edgetune.device.operators`.

    Attributes:
        model: its name.
        warmup: queries that do not count.
        queries: that do.
    """

    model: str
    warmup: int = Field(default=10, ge=0)
    queries: int = Field(default=50, ge=1)


class TrialsRequest(_Value):
    """Session options to try on one model; see `edgetune.device.trials`.

    Attributes:
        model: its name.
        present: the options that the others are held against.
        candidates: the others.
        rounds: how often each is tried.
        first: the number of the first round.
        warmup: queries of each process that do not count.
        blocks: how often the two of a pair take turns.
        queries_per_block: of each process in a block.
        period_seconds: a query begins so long after the one before it; 0 for at once.
    """

    model: str
    present: dict[str, Any]
    candidates: tuple[dict[str, Any], ...] = Field(min_length=1)
    rounds: int = Field(default=3, ge=1)
    first: int = Field(default=0, ge=0)
    warmup: int = Field(default=20, ge=0)
    blocks: int = Field(default=16, ge=1)
    queries_per_block: int = Field(default=16, ge=1)
    period_seconds: float = Field(default=0.0, ge=0.0)


class ThroughputRequest(_Value):
    """Parallel streams at batch 1; see `edgetune.device.throughput`.

    Attributes:
        threads: the numbers of streams.
        seconds: of each of them.
        rounds: how often they take turns.
    """

    threads: tuple[int, ...] = Field(min_length=1)
    seconds: float = Field(default=15.0, gt=0.0)
    rounds: int = Field(default=3, ge=1)


class Request(_Value):
    """What a device is asked to measure; as JSON it is the runner's input file.

    Attributes:
        schema_: the version of this layout.
        models: what to measure.
        session: how ONNX Runtime is opened, as the bundle will carry it.
        eval: the images whose logits are wanted; None for none.
        latency: how to time; None for not at all.
        footprint: whether to measure cold start and peak memory.
        golden: the folder of golden images to check; None for none.
        golden_model: the model that the golden logits are of; None for the last.
        preprocessing: of the golden images; None skips their decoding.
        pairs: which two models to compare in fresh processes; None for none.
        operators: which model to profile; None for none.
        trials: which session options to try; None for none.
        throughput: how many parallel streams to measure; None for none.
    """

    schema_: Literal[1] = Field(default=1, alias="schema", serialization_alias="schema")
    models: tuple[ModelRequest, ...] = Field(min_length=1)
    session: dict[str, Any]
    eval: EvalRequest | None = None
    latency: LatencyRequest | None = None
    footprint: bool = True
    golden: Path | None = None
    golden_model: str | None = None
    preprocessing: Preprocessing | None = None
    pairs: PairsRequest | None = None
    operators: OperatorsRequest | None = None
    trials: TrialsRequest | None = None
    throughput: ThroughputRequest | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the request as JSON types; paths as they are on this machine."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Target(Protocol):
    """A machine that can run the runner."""

    def describe(self) -> str:
        """Return the machine in a few words, for a report."""

    def environment(self) -> dict[str, Any]:
        """Return the machine's environment, as `edgetune.device.environment` reads it.

        Raises:
            TargetError: the machine cannot be reached, or ONNX Runtime is not on it.
        """

    def measure(self, request: Request, folder: Path, progress: Progress) -> dict[str, Any]:
        """Run the runner, leave what it wrote in `folder`, and return the former's content.

        Raises:
            TargetError: the device or a provider is not available, or the runner died or took too long.
            ArtefactError: a model has another digest than asked for, or the answer is not what a runner writes.
        """
