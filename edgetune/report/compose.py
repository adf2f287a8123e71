"""Put together what the stages found, and say the one word that follows from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetune.artefacts import Figures, Head, Measurement, Precision, Report, TaskFigures, VerdictName, VerdictRow
from edgetune.device.decisions import is_classifier
from edgetune.device.heads import column_names, heads_to_json
from edgetune.files import canonical_json, write_atomic, write_json

__all__ = ["compose", "overall", "write_report"]

COSTS = {
    "latency": ("p50_ms", "p90_ms", "p99_ms", "spread_percent", "queries"),
    "footprint": ("cold_start_ms", "first_inference_ms", "peak_memory_bytes"),
}
SEVERITY: tuple[VerdictName, ...] = ("BROKEN", "INCONCLUSIVE")


def overall(verdicts: Sequence[VerdictRow]) -> VerdictName:
    """Return BROKEN if any verdict is, else INCONCLUSIVE if any is, else KEPT; what was skipped does not count."""
    given = {row.verdict for row in verdicts}
    return next((verdict for verdict in SEVERITY if verdict in given), "KEPT")


def compose(
    *,
    title: str,
    heads: Sequence[Head],
    shipped: Precision,
    shipped_reason: str,
    verdicts: Sequence[VerdictRow],
    figures: Mapping[str, Figures | TaskFigures],
    measurement: Measurement,
    sections: Mapping[str, Mapping[str, Any]],
    warnings: Sequence[str] = (),
) -> Report:
    """Return the report of a build.

    Args:
        title: what was built for which target.
        heads: the tasks; the names of their columns are kept as `class_names` of the section `data`, in the order of the
            logits, and the heads themselves as `heads`, where they are not those of a classifier.
        shipped: the precision of the model in the bundle.
        shipped_reason: why that one.
        verdicts: all checks, in reading order.
        figures: per precision, what it achieves.
        measurement: where it was measured, and the times.
        sections: facts of the stages as JSON types: `data`, `train`, `export`, `quantize`, `provenance`, and `run` with the
            `command` that builds the same again. Sections that are missing are not drawn; others are drawn after them.
        warnings: of all stages; a warning that several stages repeat is kept once.
    """
    meaning = {} if is_classifier(heads) else {"heads": heads_to_json(heads)}
    facts = {**sections, "data": {**sections.get("data", {}), "class_names": list(column_names(heads)), **meaning}}
    return Report(
        title=title,
        shipped=shipped,
        shipped_reason=shipped_reason,
        overall=overall(verdicts),
        verdicts=tuple(verdicts),
        figures=dict(figures),
        latency={name: _costs(model) for name, model in measurement.raw["models"].items()},
        where=standing(measurement),
        environment=_as_stored(measurement.raw["environment"]),
        sections=_as_stored(facts),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _as_stored(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as they come back from `report.json`, so that a page drawn now and one drawn later are the same."""
    stored: dict[str, Any] = json.loads(canonical_json(value))
    return stored


def _costs(model: Mapping[str, Any]) -> dict[str, float | None]:
    costs = {name: (model.get(part) or {}).get(name) for part, names in COSTS.items() for name in names}
    latency = model.get("latency") or {}
    # Measurements of before there were estimates have none.
    estimates = latency.get("early_stopping") or {}
    costs |= {f"p{percent}_sure_ms": estimates.get(f"p{percent}_ms") for percent in (90, 99)}
    return {**costs, "quick_queries": latency["queries"] if latency.get("quick") else None}


def standing(measurement: Measurement) -> str:
    """Return where a measurement was made, and whether that is the target, in words."""
    if measurement.is_target:
        return f"{measurement.where}: the target itself"
    return f"{measurement.where}: NOT the target, a stand-in for it ({measurement.stand_in_reason})"


def write_report(report: Report, folder: Path) -> None:
    """Write `report.json`, the truth, and `report.md`, drawn from it.

    Raises:
        OSError: a file cannot be written; what stood there before still does.
    """
    from edgetune.report.markdown import to_markdown

    write_json(folder / "report.json", report.to_json())
    write_atomic(folder / "report.md", to_markdown(report).encode())
