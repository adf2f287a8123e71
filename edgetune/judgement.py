"""The last stage before the bundle: everything that the stages of a run left, judged and written down as one report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import OnnxModel, Report
from edgetune.report.compose import compose, write_report
from edgetune.verify.choose import choose
from edgetune.verify.judge import judge
from edgetune.verify.limits import limits
from edgetune.verify.metrics import figures_of_measurement
from edgetune.verify.stage import measured_labels

if TYPE_CHECKING:
    from edgetune.pipeline import Run

__all__ = ["judged"]


def judged(run: Run, folder: Path) -> Report:
    """Return the report of a run, written into a folder as `report.json` and `report.md`."""
    labels = measured_labels(run.dataset, run.recipe.verify)
    sizes = {name: model.size_bytes for name, model in run.models.items()}
    choice = choose(run.recipe.quantize.precision, run.measurement, sizes)
    verdicts = judge(
        run.measurement,
        labels,
        choice=choice,
        limits=limits(run.recipe, run.profile),
        parity=run.fp32.parity,
        sizes=sizes,
    )
    report = compose(
        title=f"{run.checkpoint.backbone} on {run.dataset.source} for {run.profile.title}",
        shipped=choice.shipped,
        shipped_reason=choice.reason,
        verdicts=verdicts,
        classes=run.dataset.classes,
        figures=figures_of_measurement(run.measurement, labels, run.dataset.classes),
        measurement=run.measurement,
        sections=_sections(run),
        warnings=_warnings(run),
    )
    write_report(report, folder)
    return report


def _warnings(run: Run) -> list[str]:
    """Return everything that a stage wanted a reader to know, in the order of the stages."""
    models = [warning for model in run.models.values() for warning in model.warnings]
    return [*run.dataset.warnings, *run.checkpoint.warnings, *models]


def _sections(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return what the stages say of themselves."""
    dataset, checkpoint = run.dataset, run.checkpoint
    sections: dict[str, Mapping[str, Any]] = {
        "data": {
            "source": dataset.source,
            "classes": len(dataset.classes),
            "images": dataset.counts,
            "image_size": f"{dataset.preprocessing.height} x {dataset.preprocessing.width}",
            "content_digest": dataset.content_digest,
        },
        "train": {
            "backbone": checkpoint.backbone,
            "weights": checkpoint.weights["reference"],
            "epochs": checkpoint.epochs,
            "best_epoch": checkpoint.best_epoch,
            "averaged_epochs": checkpoint.averaged_epochs,
            "val_top1_percent": checkpoint.val_top1_percent,
        },
    }
    for name, model in run.models.items():
        sections["export" if name == "fp32" else "quantize"] = _model_facts(model)
    sections["provenance"] = dict(run.provenance)
    sections["run"] = {"command": "edgetune build RUN", "run": "the run folder, which holds the resolved recipe.toml"}
    return sections


def _model_facts(model: OnnxModel) -> dict[str, Any]:
    fields = {"sha256", "size_bytes", "opset", "ir_version", "macs", "operators", "float_nodes", "steps", "parity"}
    return model.model_dump(mode="json", include=fields)
