"""What is known of a backbone before it is fine-tuned: how well it tells the images apart, and what it costs on the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from edgetune.artefacts.base import Artefact
from edgetune.artefacts.models import Precision

__all__ = ["Candidate", "Cost", "ProbeScore", "Ranking", "Timing"]


class ProbeScore(Artefact):
    """What a linear probe on the frozen backbone reaches on the validation set.

    Attributes:
        backbone: timm's name.
        weights: where the pretrained weights came from, in words and by sha256.
        score: larger is better: the mean over the heads of top-1 (percent), mean average precision (percent) or 100 R².
        standard_error: of the score, in its unit: how far it would move with other validation images.
        metrics: by name with the unit.
        images: of the validation set.
        penalty: the strength of the L2 penalty that validated best.
    """

    stage: ClassVar[str] = "probe"
    backbone: str
    weights: dict[str, str]
    score: float
    standard_error: float
    metrics: dict[str, float]
    images: int
    penalty: float


class Timing(BaseModel):
    """Batch-1 latency of one file.

    Attributes:
        p50_ms: the median.
        p90_ms: nine of ten queries are at most this slow.
        spread_percent: the interquartile range of the rounds' medians over their median.
        size_bytes: of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    p50_ms: float
    p90_ms: float
    spread_percent: float
    size_bytes: int


class Cost(Artefact):
    """What a backbone costs on a device; no trained weights are needed to know. `measurement.json` holds every sample.

    Attributes:
        backbone: timm's name.
        parameters: with the head of the task at hand.
        macs: multiply-accumulates of one image; None where it could not be exported.
        timings: per precision that could be built.
        faults: per precision that could not be built, why.
        shipped: the precision that a build would ship by this measurement; None where none could be built.
        reason: why that one.
        noise: why the times are not to be trusted; empty if they are.
        where: the device, in words.
        is_target: whether it is what the profile describes; if not, it stood in for it.
        stand_in_reason: why the target itself was not measured; empty if it was.
    """

    stage: ClassVar[str] = "cost"
    backbone: str
    parameters: int
    macs: int | None
    timings: dict[str, Timing] = Field(default_factory=dict)
    faults: dict[str, str] = Field(default_factory=dict)
    shipped: Precision | None = None
    reason: str = ""
    noise: str = ""
    where: str = ""
    is_target: bool = False
    stand_in_reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One backbone of a ranking.

    Attributes:
        backbone: timm's name.
        get: how to get its weights; empty if they are at hand.
        probe: None without weights, or where it failed.
        cost: None where it failed.
        faults: why what is missing is missing, one sentence each.
    """

    backbone: str
    get: str
    probe: ProbeScore | None
    cost: Cost | None
    faults: tuple[str, ...] = ()

    @property
    def timing(self) -> Timing | None:
        """The latency that counts: of the precision that a build would ship."""
        return self.cost.timings[self.cost.shipped] if self.cost and self.cost.shipped else None

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as JSON types."""
        probe, cost = (value.to_json() if value else None for value in (self.probe, self.cost))
        return {"backbone": self.backbone, "get": self.get, "probe": probe, "cost": cost, "faults": list(self.faults)}


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Candidates for one set of images on one target.

    Attributes:
        candidates: the fastest first; those without a latency last.
        front: the names of those that no other one beats in score and in latency.
        recommended: one of the front; None where none is both scored and timed, or none keeps the budget.
        reason: the recommendation in one sentence.
        metric: the name of the score, with its unit.
        source: of the images.
        image_size: height and width of the input, in pixels.
        images: of the validation set.
        target: the target's title.
        where: what measured, in words; empty if nothing was.
        stand_in_reason: why the target itself was not measured; empty if it was.
    """

    candidates: tuple[Candidate, ...]
    front: tuple[str, ...]
    recommended: str | None
    reason: str
    metric: str
    source: str
    image_size: int
    images: int
    target: str
    where: str
    stand_in_reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the ranking as JSON types."""
        rows = [candidate.to_json() for candidate in self.candidates]
        return {**vars(self), "schema": 1, "front": list(self.front), "candidates": rows}
