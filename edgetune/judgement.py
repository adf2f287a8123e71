"""The last stage before the bundle: everything that the stages of a run left, judged and written down as one report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Ablation, Checkpoint, Dataset, OnnxModel, Report
from edgetune.report.compose import compose, write_report
from edgetune.report.tasks import described
from edgetune.verify.choose import choose
from edgetune.verify.judge import judge
from edgetune.verify.limits import limits
from edgetune.verify.metrics import figures_of_measurement
from edgetune.verify.stage import measured_targets
from edgetune.verify.statistics import paired_drop

if TYPE_CHECKING:
    from edgetune.pipeline import Run

__all__ = ["judged"]

TOP1 = "top-1 %"
"""What training calls the share of right decisions."""


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
    )
    report = compose(
        title=f"{run.checkpoint.backbone} on {run.dataset.source} for {run.profile.title}",
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
    return [*run.dataset.warnings, *run.checkpoint.warnings, *models]


def _sections(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return what the stages say of themselves."""
    dataset, checkpoint = run.dataset, run.checkpoint
    sections: dict[str, Mapping[str, Any]] = {
        "data": {
            "source": dataset.source,
            **_tasks(dataset),
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
            **_validation(checkpoint),
        },
    }
    if checkpoint.distillation:
        sections["distillation"] = {**checkpoint.distillation, **_ablation(run.ablation)}
    for name, model in run.models.items():
        sections["export" if name == "fp32" else "quantize"] = _model_facts(model)
    sections["provenance"] = dict(run.provenance)
    sections["run"] = {"command": "edgetune build RUN", "run": "the run folder, which holds the resolved recipe.toml"}
    return sections


def _ablation(found: Ablation | None) -> dict[str, Any]:
    """Return what the teacher gave on the test set, if that was asked."""
    if found is None:
        return {"given": "not asked; `--ablate` trains the same student without the teacher, too"}
    facts: dict[str, Any] = {
        "test_with_teacher": found.taught,
        "test_without_teacher": found.plain,
        "test_images": found.images,
    }
    if found.gained is not None and found.lost is not None:
        given = paired_drop(found.lost, found.gained, found.images, 0.01)
        low, high = -given.high_points, -given.low_points
        facts["given"] = f"{-given.drop_points:+.2f} points of top-1 [{low:+.2f}, {high:+.2f}], of 90 % confidence"
    return facts


def _tasks(dataset: Dataset) -> dict[str, Any]:
    """Return what was to be learnt: the number of classes, or the tasks in words."""
    return {"classes": len(dataset.classes)} if dataset.is_classifier else {"tasks": list(map(described, dataset.heads))}


def _validation(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was reached on the validation set: of a classifier its top-1, else all figures by name."""
    metrics = checkpoint.val_metrics
    if checkpoint.is_classifier and set(metrics) == {TOP1}:
        return {"val_top1_percent": metrics[TOP1]}
    return {"validation": dict(metrics)}


def _model_facts(model: OnnxModel) -> dict[str, Any]:
    fields = {"sha256", "size_bytes", "opset", "ir_version", "macs", "operators", "float_nodes", "steps", "parity"}
    return model.model_dump(mode="json", include=fields)
