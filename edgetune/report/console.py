"""The report on a terminal: a table where there is one, plain lines where there is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from edgetune.artefacts import Report, VerdictRow
from edgetune.report.tasks import headline
from edgetune.report.words import megabytes, milliseconds

__all__ = ["draw", "verdict_lines"]

COLOURS = {"KEPT": "green", "BROKEN": "bold red", "INCONCLUSIVE": "yellow", "SKIPPED": "dim"}


def draw(report: Report, stream: TextIO) -> None:
    """Write the verdicts and the main figures to a stream.

    Args:
        report: the judgement.
        stream: a terminal gets a table in colour (without colour where NO_COLOR is set), anything else plain lines.
    """
    if stream.isatty():
        _table(report, stream)
    else:
        stream.write("\n".join(_plain(report)) + "\n")


def _plain(report: Report) -> list[str]:
    lines = [report.title, *verdict_lines(report.verdicts)]
    lines += [f"warning: {text}" for text in report.warnings]
    return [*lines, *_models(report), f"measured on {report.where}", _last(report)]


def verdict_lines(verdicts: Sequence[VerdictRow]) -> list[str]:
    """Return one plain line per verdict, aligned."""
    width = max((len(row.name) for row in verdicts), default=0)
    return [f"{row.verdict:<12} {row.name:<{width}}  {_detail(row)}".rstrip() for row in verdicts]


def _table(report: Report, stream: TextIO) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=stream, highlight=False)
    grid = Table(title=escape(report.title), title_justify="left", header_style="bold")
    for title in ("verdict", "check", "figure", "limit", "reason"):
        grid.add_column(title, overflow="fold")
    for row in report.verdicts:
        colour = COLOURS[row.verdict]
        cells = (escape(text) for text in (row.name, row.figure, row.limit, row.reason))
        grid.add_row(f"[{colour}]{row.verdict}[/{colour}]", *cells)
    console.print(grid)
    for text in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(text)}")
    for line in (*_models(report), f"measured on {report.where}"):
        console.print(escape(line))
    colour = COLOURS[report.overall]
    console.print(f"[{colour}]{escape(_last(report))}[/{colour}]")


def _detail(row: VerdictRow) -> str:
    figure = row.figure + (f" (limit: {row.limit})" if row.limit else "")
    return ": ".join(part for part in (figure.strip(), row.reason) if part)


def _models(report: Report) -> list[str]:
    """Return one line per model: what it achieves and what it costs."""
    lines = []
    for name, costs in report.latency.items():
        accuracy = headline(report, name)
        times = f"p50 {milliseconds(costs.get('p50_ms'))}, p90 {milliseconds(costs.get('p90_ms'))}"
        memory = f"peak memory {megabytes(costs.get('peak_memory_bytes'))}"
        quick = f" (quick: {queries:.0f} queries)" if (queries := costs.get("quick_queries")) else ""
        lines.append(f"{name}: {accuracy}, {times}{quick}, {memory}")
    return lines


def _last(report: Report) -> str:
    return f"{report.overall}: ships {report.shipped}; {report.shipped_reason}"
