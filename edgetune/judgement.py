"""The last stage before the bundle: everything that the stages of a run left, judged and written down as one report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Dataset, OnnxModel, Report
from edgetune.report.compose import compose, write_report
from edgetune.report.tasks import described
from edgetune.verify.choose import choose
from edgetune.verify.judge import judge
from edgetune.verify.limits import limits
from edgetune.verify.metrics import figures_of_measurement
from edgetune.verify.speed import speed
from edgetune.verify.stage import measured_targets

if TYPE_CHECKING:
    from edgetune.pipeline import Run

__all__ = ["judged"]

BLAME_IMAGES = 8
BLAMED = 3
"""Operators named where int8 is slow."""


def judged(run: Run, folder: Path) -> Report:
    """Return the report of a run, written into a folder as `report.json` and `report.md`."""
    # Those of the model: they have the thresholds that training chose.
    heads = run.fp32.heads
    targets = measured_targets(run.dataset, run.recipe.verify)
    sizes = {name: model.size_bytes for name, model in run.models.items()}
    choice = choose(run.recipe.quantize.precision, run.measurement, sizes)
    verdicts = judge(
        run.measurement,
        targets,
        heads=heads,
        choice=choice,
        limits=limits(run.recipe, run.profile),
        parity=run.fp32.parity,
        sizes=sizes,
        reference=run.origin.reference,
    )
    report = compose(
        title=f"{run.origin.name} on {run.dataset.source} for {run.profile.title}",
        shipped=choice.shipped,
        shipped_reason=choice.reason,
        verdicts=verdicts,
        heads=heads,
        figures=figures_of_measurement(run.measurement, targets, heads),
        measurement=run.measurement,
        sections=_sections(run),
        warnings=_warnings(run),
    )
    write_report(report, folder)
    if run.recipe.watch.pictures:
        from edgetune.report.illustrate import illustrate

        illustrate(report, run.measurement, targets, heads, folder)
    return report


def _warnings(run: Run) -> list[str]:
    """Return everything that a stage wanted a reader to know, in the order of the stages."""
    models = [warning for model in run.models.values() for warning in model.warnings]
    return [*run.dataset.warnings, *run.origin.warnings, *models, *_too_slow(run)]


def _too_slow(run: Run) -> list[str]:
    """Return that the reduced precision was measured to be no faster than fp32, if so, and which operators are to blame."""
    found = speed(run.measurement)
    if run.reduced is None or found is None or found.ratio < 1:
        return []
    from edgetune.quantize.blame import blame

    images = run.dataset.read("val", range(min(BLAME_IMAGES, run.dataset.counts["val"])))
    shares = blame(run.fp32.path, run.reduced.path, run.profile.runtime, images).operators()
    why = "; ".join(f"{operator}: {share:.0f} % of its time" for operator, share in list(shares.items())[:BLAMED])
    slow = f"{run.reduced.precision} is no faster than fp32 ({found})"
    return [f"{slow}. {why or 'No operator stands out'} (profiled on this machine)"]


def _sections(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return what the stages say of themselves."""
    dataset, origin = run.dataset, run.origin
    sections: dict[str, Mapping[str, Any]] = {
        "data": {
            "source": dataset.source,
            **_tasks(dataset),
            "images": dataset.counts,
            "image_size": f"{dataset.preprocessing.height} x {dataset.preprocessing.width}",
            "content_digest": dataset.content_digest,
        },
        **origin.sections(),
    }
    sections |= {model.stage_name: _model_facts(model) for model in run.models.values()}
    sections["provenance"] = dict(run.provenance)
    sections["run"] = {"command": origin.command, "run": "the run folder, which holds the resolved recipe.toml"}
    return sections


def _tasks(dataset: Dataset) -> dict[str, Any]:
    """Return what was to be learnt: the number of classes, or the tasks in words."""
    return {"classes": len(dataset.classes)} if dataset.is_classifier else {"tasks": list(map(described, dataset.heads))}


def _model_facts(model: OnnxModel) -> dict[str, Any]:
    fields = {
        "sha256",
        "size_bytes",
        "opset",
        "ir_version",
        "macs",
        "operators",
        "float_nodes",
        "steps",
        "rungs",
        "spread",
        "parity",
    }
    return model.model_dump(mode="json", include=fields)
