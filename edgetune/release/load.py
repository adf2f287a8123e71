"""Read a bundle, but only if it is exactly what was built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgetune.artefacts import Precision
from edgetune.device.heads import MULTI_LABEL, REGRESSION, Head
from edgetune.errors import ArtefactError, Fault

__all__ = ["load_bundle", "locate_bundle"]

LIMIT_OF_KIND = {MULTI_LABEL: "map_drop_points", REGRESSION: "rmse_increase_percent"}
REMEDY = "build it again with `edgetune build`, or fetch an untouched copy"


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Model(_Table):
    precision: Precision
    file: str
    sha256: str
    size_bytes: int


class _Profile(_Table):
    architecture: str
    features: list[str]
    absent: list[str]
    min_onnxruntime: str


class _Limits(_Table):
    golden_max_abs: float
    top1_drop_points: float
    map_drop_points: float | None = None
    rmse_increase_percent: float | None = None
    latency_p90_ms: float | None
    size_bytes: int | None
    peak_memory_bytes: int | None


class _Accuracy(_Table):
    top1_percent: float


class _LabelAccuracy(_Table):
    map_percent: float | None


class _Value(_Table):
    rmse: float


class _ValueAccuracy(_Table):
    per_value: dict[str, _Value]


class _TaskAccuracy(_Table):
    heads: dict[str, _Accuracy | _LabelAccuracy | _ValueAccuracy]


class _Figures(_Table):
    accuracy: dict[str, _Accuracy | _TaskAccuracy]


class _Task(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    kind: Literal["single-label", "multi-label", "regression"]
    columns: list[str]
    separator: str


class _Promises(_Table):
    """What a check holds against this machine; other keys are for the reader."""

    model: _Model
    profile: _Profile
    limits: _Limits
    figures: _Figures
    tasks: dict[str, _Task] = Field(default_factory=dict)


def locate_bundle(folder: Path) -> Path:
    """Return the bundle that a user means by a folder: the folder itself, or the `bundle` in a run folder."""
    inside = folder / "bundle"
    is_run = (folder / "recipe.toml").is_file() and inside.is_dir() and not (folder / "manifest.json").exists()
    return inside if is_run else folder


def load_bundle(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle after checking every file's digest, and that no file is missing or was added.

    Raises:
        ArtefactError: with every file that is not what was built, or else with everything that the manifest should say and
            does not.
    """
    from edgetune.device.bundle import read_bundle
    from edgetune.device.digest import read_json
    from edgetune.device.exitcodes import RunnerError

    try:
        shipped = read_bundle(folder)
        labels = read_json(folder / "labels.json") if "labels.json" in shipped.manifest["files"] else None
    except RunnerError as fault:
        raise ArtefactError(
            fault.message, faults=[Fault(where="", problem=line) for line in fault.faults], remedy=REMEDY
        ) from fault
    faults = _promise_faults(shipped.manifest, shipped.heads)
    if not faults and shipped.manifest["model"]["sha256"] != shipped.sha256:
        faults.append(Fault(where="model.sha256", problem="is not that of the model's file in the table files"))
    if labels != list(shipped.classes):
        faults.append(Fault(where="classes", problem="are not those in labels.json"))
    if faults:
        raise ArtefactError(f"{folder / 'manifest.json'} cannot be used", faults=faults, remedy=REMEDY)
    return shipped.manifest


def _place(steps: Sequence[str | int]) -> str:
    """Return where a fault is, without the names of the alternatives that were tried there."""
    return ".".join(str(step) for step in steps if not str(step).startswith("_"))


def _promise_faults(manifest: dict[str, Any], heads: Sequence[Head]) -> list[Fault]:
    try:
        promises = _Promises.model_validate(manifest)
    except ValidationError as errors:
        return [Fault(where=_place(error["loc"]), problem=error["msg"]) for error in errors.errors()]
    # Manifests of classifiers lacked them before there were other tasks.
    kinds = {head.kind for head in heads}
    needed = {name: getattr(promises.limits, name) for kind, name in LIMIT_OF_KIND.items() if kind in kinds}
    faults = [Fault(where=f"limits.{name}", problem="is missing") for name, value in needed.items() if value is None]
    if promises.tasks and set(promises.tasks) != {head.name for head in heads}:
        faults.append(Fault(where="tasks", problem="are not those of the heads"))
    return faults
