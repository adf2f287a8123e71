"""`report.md`: the whole judgement on one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgetune.artefacts import Figures, MultiLabelFigures, Report, TaskFigures
from edgetune.report.tasks import figures_table, heads_of, labels_table, task_tables, values_table
from edgetune.report.words import bullets, cell, megabytes, milliseconds, number, queries, table

__all__ = ["to_markdown"]

LARGEST_MATRIX = 20
CONFUSED_PAIRS = 10
ORDER = {
    "data": "Data",
    "model": "Model",
    "train": "Training",
    "export": "Export",
    "import": "Import",
    "quantize": "Quantization",
}
LATER = {"provenance": "Provenance", "run": "How to run it again"}


def to_markdown(report: Report) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    lines = [
        f"# {cell(report.title)}",
        "",
        f"**{report.overall}** · ships {report.shipped}: {cell(report.shipped_reason)}.",
        "",
        f"Measured on {cell(report.where)}.",
        *_warnings(report),
        *_section("Verdicts", verdict_table(report)),
        *_section("Accuracy on the test set", accuracy_table(report)),
        *_parts(report),
        *_section("Latency at batch 1 and footprint", latency_table(report)),
        *_stages(report, ORDER),
        *_section("Environment", list(bullets(report.environment))),
        *_others(report),
        *_stages(report, {"provenance": LATER["provenance"]}),
        *_again(report),
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if lines else []


def _warnings(report: Report) -> list[str]:
    return _section("Warnings", [f"- {cell(text)}" for text in report.warnings])


def verdict_table(report: Report) -> list[str]:
    """Return the lines of the table of verdicts."""
    header = ("verdict", "kind", "check", "figure", "limit", "reason")
    return table(header, [(r.verdict, r.kind, r.name, r.figure, r.limit, r.reason) for r in report.verdicts])


def accuracy_table(report: Report) -> list[str]:
    """Return the lines of the table of figures, one column per precision; for other tasks than a single label, of each head."""
    if not report.figures:
        return ["No model gave logits that are numbers."]
    of_classes = {name: figures for name, figures in report.figures.items() if isinstance(figures, Figures)}
    return figures_table(of_classes) if of_classes else task_tables(report)


def latency_table(report: Report) -> list[str]:
    """Return the lines of the table of times and sizes, one column per precision."""
    rows = [
        ("p50", *(milliseconds(model.get("p50_ms")) for model in report.latency.values())),
        ("p90", *(milliseconds(model.get("p90_ms")) for model in report.latency.values())),
        ("p99", *(milliseconds(model.get("p99_ms")) for model in report.latency.values())),
        ("p90 with 99 % confidence", *(milliseconds(model.get("p90_sure_ms")) for model in report.latency.values())),
        ("p99 with 99 % confidence", *(milliseconds(model.get("p99_sure_ms")) for model in report.latency.values())),
        ("queries", *(queries(model) for model in report.latency.values())),
        ("spread between rounds, %", *(number(model.get("spread_percent"), 1) for model in report.latency.values())),
        ("cold start", *(milliseconds(model.get("cold_start_ms")) for model in report.latency.values())),
        ("first inference", *(milliseconds(model.get("first_inference_ms")) for model in report.latency.values())),
        ("peak memory", *(megabytes(model.get("peak_memory_bytes")) for model in report.latency.values())),
    ]
    return table(("", *report.latency), rows, numeric=len(report.latency))


def _parts(report: Report) -> Iterator[str]:
    """Yield the figures per class, label or value of the shipped model, and what it confuses."""
    figures = report.figures.get(report.shipped)
    if isinstance(figures, Figures):
        yield from _classes(figures, report.sections["data"]["class_names"], report.shipped)
    if not isinstance(figures, TaskFigures):
        return
    for head in heads_of(report):
        found = figures.heads.get(head.name)
        of = f"of {cell(head.name)} ({report.shipped})"
        if isinstance(found, Figures):
            yield from _classes(found, head.columns, report.shipped, f" of {cell(head.name)}")
        elif isinstance(found, MultiLabelFigures):
            yield from _section(f"Labels {of}", labels_table(head, found))
        elif found is not None:
            yield from _section(f"Values {of}", values_table(head, found))


def _classes(figures: Figures, names: Sequence[str], shipped: str, of: str = "") -> Iterator[str]:
    """Yield the figures per class and the confusions."""
    rows = []
    for name in names:
        one = figures.per_class[name]
        rows.append((name, *(number(one[key], 3) for key in ("precision", "recall", "f1")), int(one["images"])))
    header = ("class", "precision", "recall", "F1", "images")
    yield from _section(f"Classes{of} ({shipped})", table(header, rows, numeric=4))
    if len(rows) <= LARGEST_MATRIX:
        yield from _section(f"Confusion matrix{of} ({shipped})", _matrix(figures, names))
    else:
        yield from _section(f"The most confused classes{of} ({shipped})", _pairs(figures, names))


def _matrix(figures: Figures, names: Sequence[str]) -> list[str]:
    rows = [(name, *counts) for name, counts in zip(names, figures.confusion, strict=True)]
    header = ("label ↓ decision →", *(cell(name) for name in names))
    return table(header, rows, numeric=len(names))


def _pairs(figures: Figures, names: Sequence[str]) -> list[str]:
    pairs = [
        (count, names[label], names[decision])
        for label, counts in enumerate(figures.confusion)
        for decision, count in enumerate(counts)
        if count and label != decision
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    if not pairs:
        return ["None: every decision is right."]
    return table(("label", "decision", "images"), [(a, b, n) for n, a, b in pairs[:CONFUSED_PAIRS]], numeric=1)


def _stages(report: Report, titles: dict[str, str]) -> Iterator[str]:
    for name, title in titles.items():
        facts = dict(report.sections.get(name, {}))
        rungs = facts.pop("rungs", ())
        yield from _section(title, [*rung_table(rungs), *([""] if rungs else []), *bullets(facts)])


def rung_table(rungs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table of what the quantizer tried, with the figures of held-out train images."""
    if not rungs:
        return []
    rows = [
        (
            rung["rung"],
            "yes" if rung["kept"] else "no",
            rung.get("note", ""),
            f"{rung['divergence_nats']:.2g}",
            f"{rung['nmse']:.2g}",
            f"{rung['agreement_percent']:.2f} %",
            f"{rung['top1_percent']:.2f} %" if "top1_percent" in rung else "-",
            milliseconds(rung.get("latency_p50_ms")),
            _of_fp32(rung),
            f"{rung['seconds']:.0f} s",
        )
        for rung in rungs
    ]
    header = ("step", "kept", "", "divergence, nats", "NMSE", "agreement", "top-1", "p50", "of fp32's", "took")
    # The network learnt from these images: what it says of them is no accuracy to be claimed.
    note = "On train images that were held out, unless a warning says they were too few. The network has seen them: no claim."
    return [*table(header, rows, numeric=6), "", note]


def _of_fp32(rung: Mapping[str, Any]) -> str:
    if "fp32_latency_p50_ms" not in rung:
        return "-"
    return f"{100 * rung['latency_p50_ms'] / rung['fp32_latency_p50_ms']:.0f} %"


def _others(report: Report) -> Iterator[str]:
    known = {*ORDER, *LATER}
    yield from _stages(report, {name: cell(name.capitalize()) for name in report.sections if name not in known})


def _again(report: Report) -> list[str]:
    run = dict(report.sections.get("run", {}))
    command = run.pop("command", None)
    lines = ["```sh", str(command), "```"] if command else []
    return _section(LATER["run"], [*lines, *([""] if lines and run else []), *bullets(run)])
