"""A candidate held against its baseline: everything joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Head, VerdictRow
from edgetune.artefacts.comparison import ChangedDecision, Comparison
from edgetune.device.heads import REGRESSION
from edgetune.errors import DataError
from edgetune.gate.baseline import Baseline, read_baseline
from edgetune.gate.images import Labelled, Source, labelled, source_of
from edgetune.gate.judging import cost_rows, model_rows, no_images, on_one_scale, sane, size
from edgetune.gate.measuring import Answers, Device
from edgetune.gate.sides import Side, column_order, completed, read_side
from edgetune.gate.tolerances import Tolerances
from edgetune.progress import Progress
from edgetune.verify import rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgetune.verify.targets.interface import Target

    Logits = npt.NDArray[np.float32]

__all__ = ["compare"]

LISTED = 100
"""Changed decisions that are listed and drawn, at most."""
NO_NUMBERS = "a model's logits are not numbers that vary"
NOT_TIMED = "not asked for"
QUICKLY = "--quick: few pairs of processes, a look and not a measurement"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How to compare.

    Attributes:
        source: labelled images; None for those of a run folder's recipe, or for none.
        every: take all of the images, not the test split alone.
        allowed: what must hold.
        quick: few pairs of processes.
        timed: whether to time at all.
        report: the folder for the pictures; None for none.
    """

    source: str | None
    every: bool
    allowed: Tolerances
    quick: bool
    timed: bool
    report: Path | None


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What follows from the images."""

    verdicts: tuple[VerdictRow, ...]
    changed: tuple[ChangedDecision, ...] = ()
    images: Labelled | None = None
    query_ms: float | None = None


def compare(
    baseline: Path,
    candidate: Path,
    *,
    source: str | None,
    every: bool,
    allowed: Tolerances,
    quick: bool,
    timed: bool,
    target: Target,
    scratch: Path,
    report: Path | None,
    progress: Progress,
) -> Comparison:
    """Hold a candidate against its baseline.

    Args:
        baseline: a bundle, a run folder, an ONNX file that keeps the contract, or a baseline file.
        candidate: a bundle, a run folder or an ONNX file.
        source: labelled images; None for those of a run folder's recipe, or for none.
        every: take all of the images, not the test split alone.
        allowed: what must hold.
        quick: few pairs of processes: a look, not a measurement.
        timed: whether to measure times and memory at all.
        target: the device.
        scratch: a folder for what is needed meanwhile.
        report: the folder that receives pictures of changed decisions; None for none.
        progress: told what goes on.

    Raises:
        UsageError: a side is nothing that can be compared, or they do not do the same task.
        ArtefactError: a side is not what was built.
        DataError: the images cannot be used.
        TargetError: the device cannot be used.
    """
    wish = Wish(source=source, every=every, allowed=allowed, quick=quick, timed=timed, report=report)
    device = Device(target=target, folder=scratch / "device", progress=progress)
    second = read_side(candidate, "candidate")
    if baseline.suffix == ".json":
        return _against_figures(read_baseline(baseline), second, wish, device, scratch, progress)
    first, second = completed(read_side(baseline, "baseline"), second)
    images = source_of(source, every, first, second)
    device.meet()
    found = _Found(verdicts=tuple(no_images(first.heads)))
    if images is not None:
        found = _on_images(first, second, images, wish, device, scratch, progress)
    costs: tuple[VerdictRow, ...] = tuple(_untimed(NOT_TIMED))
    if timed:
        query_ms = found.query_ms or device.query_ms(first)
        result = device.timed(first, second, found.images, query_ms, allowed.latency_percent, quick)
        costs = tuple(cost_rows(result, allowed))
    verdicts = (*found.verdicts, *costs, size(first.shown, second.shown, allowed.size_percent))
    notes = [*_warnings(device, first, second), *([QUICKLY] if quick else [])]
    return _joined(first, second, verdicts, found, wish, device, notes)


def _untimed(reason: str) -> Iterator[VerdictRow]:
    for kind, name in (("latency", "latency, batch 1"), ("latency", "cold start"), ("memory", "peak memory")):
        yield rows.skipped(kind, name, reason)


def _on_images(
    first: Side, second: Side, source: Source, wish: Wish, device: Device, scratch: Path, progress: Progress
) -> _Found:
    """Return what follows from both models' answers on the same images."""
    ours = labelled(source, first, scratch / "baseline", progress)
    theirs = ours
    if second.preprocessing != first.preprocessing:
        progress.line("the two prepare images in different ways; each gets the same images in its own way")
        theirs = labelled(source, _counted_as(second, first), scratch / "candidate", progress)
        _require_same_images(ours, theirs)
    before, after = device.answers(first, ours), device.answers(second, theirs)
    verdicts = [
        row for row in (sane(before, "baseline"), sane(after, "candidate")) if row.name.startswith("cand") or row.reason
    ]
    if not all(one.finite for one in (before, after)):
        verdicts += [_undecided(row) for row in no_images(first.heads)]
        return _Found(verdicts=tuple(verdicts), images=ours, query_ms=_query_ms(before, after))
    answers = _in_order(after.logits, second, first.heads)
    verdicts += model_rows(before.logits, answers, ours.targets, first.heads, wish.allowed)
    from edgetune.gate.changed import changed_decisions

    changed = changed_decisions(before.logits, answers, ours.targets, ours.names, first.heads)
    return _Found(verdicts=tuple(verdicts), changed=tuple(changed), images=ours, query_ms=_query_ms(before, after))


def _query_ms(*answers: Answers) -> float:
    return min(one.query_ms for one in answers)


def _undecided(row: VerdictRow) -> VerdictRow:
    return rows.undecided(row.kind, row.name, NO_NUMBERS)


def _in_order(logits: Logits, side: Side, heads: Sequence[Head]) -> Logits:
    """Return a candidate's logits with the columns, and on the scale, of the baseline's heads."""
    return on_one_scale(logits[:, column_order(tuple(heads), side.heads)], side.heads, heads)


def _counted_as(side: Side, first: Side) -> Side:
    """Return a side whose images come with the baseline's labels, in the baseline's order."""
    manifest = first.manifest or side.manifest
    return replace(side, heads=first.heads, manifest=manifest)


def _require_same_images(ours: Labelled, theirs: Labelled) -> None:
    """Refuse splits that differ.

    Raises:
        DataError: an image is on one side only.
    """
    if ours.names != theirs.names:
        raise DataError(
            "prepared for the two models, the images fall into different test splits",
            remedy="give a folder with train/, val/ and test/, or take all images: --all-images",
        )


def _against_figures(file: Baseline, second: Side, wish: Wish, device: Device, scratch: Path, progress: Progress) -> Comparison:
    """Return the judgement of a candidate against a baseline file."""
    from edgetune.gate.against import figure_changes, figure_rows, never_timed

    first = Side(
        name="baseline", shown=file.bundle, path=second.path, heads=file.tasks, preprocessing=second.preprocessing, session={}
    )
    first, second = completed(first, second)
    source = source_of(wish.source, wish.every, second)
    device.meet()
    found = _Found(verdicts=tuple(no_images(file.tasks)))
    if source is not None:
        images = labelled(source, _counted_as(second, first), scratch / "images", progress)
        answers = device.answers(second, images)
        verdicts = [sane(answers, "candidate")]
        found = _Found(verdicts=(*verdicts, *map(_undecided, no_images(file.tasks))), images=images)
        if answers.finite:
            logits = _in_order(answers.logits, second, file.tasks)
            changed = figure_changes(file, logits, images, file.tasks)
            verdicts += figure_rows(file, logits, images, file.tasks, wish.allowed)
            found = _Found(verdicts=tuple(verdicts), changed=tuple(changed), images=images)
    costs = (*never_timed(), size(file.bundle, second.shown, wish.allowed.size_percent))
    return _joined(first, second, (*found.verdicts, *costs), found, wish, device, _warnings(device, second))


def _warnings(device: Device, *sides: Side) -> Iterator[str]:
    """Yield that the device is not the one that a bundle is for, and what else a reader must know."""
    for side in sides:
        if reason := device.strangeness(side):
            yield f"{device.where} stands in for the board of the {side.name} ({reason}): times may differ there"
        if device.session(side) != side.session:
            yield f"the {side.name} ran with fewer threads than on its board, as there are not so many cores"
    if len(sides) == 2 and sides[0].shown.model_sha256 == sides[1].shown.model_sha256:
        yield "baseline and candidate are the same file"


def _joined(
    first: Side,
    second: Side,
    verdicts: Sequence[VerdictRow],
    found: _Found,
    wish: Wish,
    device: Device,
    warnings: Iterator[str] | Sequence[str],
) -> Comparison:
    from edgetune.report.compose import overall

    listed: Sequence[ChangedDecision] = found.changed[:LISTED]
    if wish.report is not None:
        from edgetune.gate.changed import draw, forget

        forget(wish.report)
        listed = draw(listed, found.images.path, wish.report) if found.images else listed
    notes = list(warnings)
    if any(head.kind == REGRESSION for head in first.heads) and found.images is not None:
        notes.append("a regression decides nothing: its images are not listed")
    return Comparison(
        overall=overall(verdicts),
        baseline=first.shown,
        candidate=second.shown,
        verdicts=tuple(verdicts),
        changed=tuple(listed),
        changed_total=len(found.changed),
        data=found.images.facts() if found.images else {},
        where=device.where,
        environment=_environment(device),
        tolerances=wish.allowed.to_json(),
        warnings=tuple(notes),
    )


def _environment(device: Device) -> dict[str, Any]:
    return {
        **device.environment,
        "after": {key: device.after.get(key) for key in ("load_average", "temperature_c", "throttled")},
    }
