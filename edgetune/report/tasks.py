"""What a model achieves, task by task, in words and tables: for models that do more than to choose one of several classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgetune.artefacts import Figures, Head, HeadFigures, MultiLabelFigures, RegressionFigures, Report, TaskFigures
from edgetune.device.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, columns_of, default_heads, heads_from_json
from edgetune.report.words import cell, number, table

__all__ = [
    "columns_in_words",
    "described",
    "figures_table",
    "headline",
    "heads_of",
    "labels_table",
    "significant",
    "task_tables",
    "values_table",
]

UNITS = {SINGLE_LABEL: "classes", MULTI_LABEL: "labels", REGRESSION: "values"}


def heads_of(report: Report) -> tuple[Head, ...]:
    """Return what the columns of the reported models' logits mean."""
    data = report.sections["data"]
    return heads_from_json(data["heads"]) if "heads" in data else default_heads(data["class_names"])


def described(head: Head) -> str:
    """Return a head in a few words, such as `colour (one of 4 classes)`."""
    count, unit = len(head.columns), UNITS[head.kind]
    words = {
        SINGLE_LABEL: f"one of {count} {unit}",
        MULTI_LABEL: f"any of {count} {unit}",
        REGRESSION: "a value" if count == 1 else f"{count} {unit}",
    }
    return f"{head.name} ({words[head.kind]})"


def headline(report: Report, precision: str) -> str:
    """Return the main figure of each task of one model on one line."""
    figures = report.figures.get(precision)
    if isinstance(figures, Figures):
        return _main(figures)
    if not figures or not figures.heads:
        return "no accuracy"
    # In the order of the heads: that of a JSON file's keys says nothing.
    known = [head.name for head in heads_of(report) if head.name in figures.heads]
    return ", ".join(f"{name} {_main(figures.heads[name])}" if len(known) > 1 else _main(figures.heads[name]) for name in known)


def _main(figures: HeadFigures) -> str:
    if isinstance(figures, Figures):
        return f"top-1 {number(figures.top1_percent)} %"
    if isinstance(figures, MultiLabelFigures):
        return f"mAP {number(figures.map_percent)} %"
    return f"RMSE {significant(figures.rmse)} (R² {number(figures.r2)})"


def significant(value: float | None) -> str:
    """Return a number of any unit with four significant digits, a dash if there is none."""
    return "-" if value is None else f"{value:.4g}"


def task_tables(report: Report) -> list[str]:
    """Return the lines of a table of figures for each task, one column per precision."""
    by_precision = {name: one.heads for name, one in report.figures.items() if isinstance(one, TaskFigures)}
    lines: list[str] = []
    for head in heads_of(report):
        found = {precision: heads[head.name] for precision, heads in by_precision.items() if head.name in heads}
        lines += ["", f"**{cell(described(head))}**", ""]
        lines += figures_table(found) if found else ["Nothing is known of any test image."]
    return lines[1:]


def figures_table(found: Mapping[str, HeadFigures]) -> list[str]:
    """Return the lines of the table of one task's figures, one column per precision."""
    columns = [dict(_rows(figures)) for figures in found.values()]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return table(("", *found), rows, numeric=len(found))


def _rows(figures: HeadFigures) -> Iterator[tuple[str, str]]:
    yield "images", str(figures.images)
    if isinstance(figures, Figures):
        yield "top-1 %", number(figures.top1_percent)
        yield "top-5 %", number(figures.top5_percent)
        yield "precision, macro", number(figures.precision_macro, 4)
        yield "recall, macro", number(figures.recall_macro, 4)
        yield "F1, macro", number(figures.f1_macro, 4)
        yield "ECE, 15 bins", number(figures.ece, 4)
    elif isinstance(figures, MultiLabelFigures):
        yield "mAP %", number(figures.map_percent)
        yield "F1, macro", number(figures.f1_macro, 4)
        yield "F1, micro", number(figures.f1_micro, 4)
        yield "images all right, %", number(figures.exact_percent)
        yield "labels wrong (Hamming), %", number(figures.hamming_percent)
    else:
        yield "MAE", significant(figures.mae)
        yield "RMSE", significant(figures.rmse)
        yield "R²", number(figures.r2, 4)


def labels_table(head: Head, figures: MultiLabelFigures) -> list[str]:
    """Return the lines of the table of a head's labels."""
    rows = []
    for name in head.columns:
        one = figures.per_label[name]
        parts = (number(one[key], 3) for key in ("ap", "precision", "recall", "f1", "threshold"))
        rows.append((name, *parts, int(one["positives"] or 0), int(one["images"] or 0)))
    header = ("label", "average precision", "precision", "recall", "F1", "threshold", "positives", "images")
    return table(header, rows, numeric=7)


def values_table(head: Head, figures: RegressionFigures) -> list[str]:
    """Return the lines of the table of a head's values, in the units of the training data."""
    rows = []
    for name in head.columns:
        one = figures.per_value.get(name, {})
        parts = (significant(one.get(key)) for key in ("mae", "rmse", "r2", "bias", "std"))
        rows.append((name, *parts, int(one.get("images") or 0)))
    header = ("value", "MAE", "RMSE", "R²", "bias", "std of the truth", "images")
    return table(header, rows, numeric=6)


def columns_in_words(heads: Sequence[Head]) -> Iterator[str]:
    """Yield, per head, which logits are its own and what they mean, as Markdown bullets."""
    meanings = {
        SINGLE_LABEL: "a class each; the largest is the decision",
        MULTI_LABEL: "a label each; its sigmoid is the probability, decided from the threshold in `manifest.json` on",
        REGRESSION: "the values themselves, in the units of the training data",
    }
    for head, columns in zip(heads, columns_of(heads), strict=True):
        yield f"  - `logits[:, {columns.start}:{columns.stop}]` {cell(described(head))}: {meanings[head.kind]}"
