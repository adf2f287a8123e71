"""What was measured and what follows from it: what the stages measure, report and release leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgetune.artefacts.base import Artefact
from edgetune.artefacts.models import Precision

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Bundle",
    "Figures",
    "HeadFigures",
    "Measurement",
    "MultiLabelFigures",
    "RegressionFigures",
    "Report",
    "TaskFigures",
    "VerdictName",
    "VerdictRow",
]

VerdictName = Literal["KEPT", "BROKEN", "INCONCLUSIVE", "SKIPPED"]


class Measurement(Artefact):
    """What the runner measured on a device: `measurement.json` as it wrote it, and `logits-NAME.npy` per model.

    Attributes:
        where: the device, in words.
        is_target: whether that device is what the profile describes; if not, it stood in for it.
        stand_in_reason: why the target itself was not measured; empty if it was.
        raw: the content of `measurement.json`; its schema is documented in `edgetune.device.measure`.
    """

    stage: ClassVar[str] = "measure"
    where: str
    is_target: bool
    stand_in_reason: str = ""
    raw: dict[str, Any]

    def logits(self, model: str) -> npt.NDArray[np.float32]:
        """Return the logits that a model gave on the eval pack: float32 `[N, C]`."""
        import numpy as np

        logits: npt.NDArray[np.float32] = np.load(self.folder / f"logits-{model}.npy", allow_pickle=False)
        return logits


class VerdictRow(BaseModel):
    """One check and its verdict.

    Attributes:
        kind: numeric, decision, accuracy, latency, size, memory or golden.
        name: what was compared, in a few words.
        verdict: KEPT, BROKEN, INCONCLUSIVE or SKIPPED.
        figure: the measured value with its unit, for a person.
        limit: the budget or tolerance, for a person.
        reason: why, in one sentence; never empty when SKIPPED or INCONCLUSIVE.
        data: the same in numbers, for a program.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: str
    name: str
    verdict: VerdictName
    figure: str
    limit: str
    reason: str = ""
    data: dict[str, Any] = Field(default_factory=dict)


class Figures(BaseModel):
    """What one model achieves on the test set where each image has one of several classes.

    Attributes:
        images: the number of test images.
        top1_percent: the largest logit is the label, in percent.
        top5_percent: the label is among the five largest logits, in percent; None with fewer than six classes.
        precision_macro: the mean over classes, 0 to 1.
        recall_macro: the mean over classes, 0 to 1.
        f1_macro: the mean over classes, 0 to 1.
        ece: expected calibration error over 15 equal bins of confidence, 0 to 1.
        per_class: per class name, precision, recall, f1 and images.
        confusion: rows are labels, columns are decisions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    images: int
    top1_percent: float
    top5_percent: float | None
    precision_macro: float
    recall_macro: float
    f1_macro: float
    ece: float
    per_class: dict[str, dict[str, float]]
    confusion: tuple[tuple[int, ...], ...]


class MultiLabelFigures(BaseModel):
    """What one head of several labels achieves on the test set. What is not known of an image is left out.

    Attributes:
        images: test images of which a label or more is known to be there or not.
        map_percent: the mean over labels of the average precision, in percent; over labels that some test image has, as the
            others have no precision. None if there are none.
        f1_macro: the mean over the same labels, 0 to 1; None with `map_percent`.
        f1_micro: of all decisions together, 0 to 1.
        exact_percent: images with every known label decided right, in percent.
        hamming_percent: decisions about a label of an image that are wrong, in percent.
        per_label: per label, `images` of which it is known, `positives` that have it, its `threshold`, `precision`, `recall`
            and `f1` of the decisions, and the average precision `ap` (None without a positive).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: Literal["multi-label"] = "multi-label"
    images: int
    map_percent: float | None
    f1_macro: float | None
    f1_micro: float
    exact_percent: float
    hamming_percent: float
    per_label: dict[str, dict[str, float | None]]


class RegressionFigures(BaseModel):
    """How far one head's values are from the truth on the test set, in the units of the training data.

    Attributes:
        images: test images of which a value or more is known.
        mae: the mean absolute error, a mean over the values; it means something where they have one unit.
        rmse: the root of the mean squared error, likewise.
        r2: 1 less the squared error over the variance of the truth, a mean over the values whose truth varies; None if none
            does. 0 is what the mean of the truth would reach.
        per_value: per value, `images` of which it is known, `mae`, `rmse`, `r2`, `bias` (the mean of answer less truth) and
            `std`, the standard deviation of the truth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: Literal["regression"] = "regression"
    images: int
    mae: float
    rmse: float
    r2: float | None
    per_value: dict[str, dict[str, float | None]]


HeadFigures = Figures | MultiLabelFigures | RegressionFigures


class TaskFigures(BaseModel):
    """What one model achieves on the test set where it does more, or something else, than to choose one of several classes.

    Attributes:
        heads: by name; a head of which nothing is known in the test set is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    heads: dict[str, HeadFigures]


class Report(Artefact):
    """The judgement: `report.json` is the truth, everything else is drawn from it.

    Attributes:
        title: what was built for which target.
        shipped: the precision of the model that goes into the bundle.
        shipped_reason: why that one.
        overall: BROKEN if any verdict is, else INCONCLUSIVE if any is, else KEPT.
        verdicts: all checks.
        figures: per precision, what it achieves on the test set: `Figures` of a classifier, else `TaskFigures`.
        latency: per precision, milliseconds at batch 1 (p50, p90, p99, cold start) and peak memory.
        where: where it was measured, and whether that is the target.
        environment: of the device that measured.
        sections: facts of the stages (data, train, export, quantize), as they reported them.
        warnings: everything that a stage wanted a reader to know.
    """

    stage: ClassVar[str] = "report"
    title: str
    shipped: Precision
    shipped_reason: str
    overall: VerdictName
    verdicts: tuple[VerdictRow, ...]
    figures: dict[str, Figures | TaskFigures]
    latency: dict[str, dict[str, float | None]]
    where: str
    environment: dict[str, Any]
    sections: dict[str, dict[str, Any]]
    warnings: tuple[str, ...] = ()


class Bundle(Artefact):
    """A folder that holds everything that a device needs, and the digest of all of it.

    Attributes:
        manifest_sha256: of `manifest.json`, which names every other file with its digest.
        size_bytes: of all files.
    """

    stage: ClassVar[str] = "release"
    manifest_sha256: str
    size_bytes: int
