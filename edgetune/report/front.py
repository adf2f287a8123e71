"""A ranking of backbones as a person reads it: a line for each, a table, a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.artefacts import Candidate, Cost, Ranking
from edgetune.report.canvas import BLUE, INK, VERMILLION, figure_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_front", "in_words", "lines"]

ON_FRONT, TAKEN = "*", "→"
HEADER = ("", "backbone", "score", "ships", "int8 p50", "p90", "fp32 p50", "p90", "parameters", "MACs", "file")
RESTLESS = "~"
NOISY_SPREAD_PERCENT = 10.0


def in_words(candidate: Candidate) -> str:
    """Return a candidate in one line of a log."""
    parts = [_score(candidate) if candidate.probe else "", _times(candidate)]
    parts += ["weights not at hand"] if candidate.get else []
    return f"{candidate.backbone}: {', '.join(part for part in [*parts, *candidate.faults] if part)}"


def _times(candidate: Candidate) -> str:
    timings = candidate.cost.timings if candidate.cost else {}
    return ", ".join(f"{name} {timing.p50_ms:.2f} ms" for name, timing in sorted(timings.items(), reverse=True))


def _score(candidate: Candidate) -> str:
    return "-" if candidate.probe is None else f"{candidate.probe.score:.1f} ± {candidate.probe.standard_error:.1f}"


def lines(ranking: Ranking) -> Iterator[str]:
    """Yield a ranking for a person: heading, table, what is missing and why, and the recommendation."""
    yield f"{ranking.source}, {ranking.image_size} px, for {ranking.target}"
    yield f"score: {ranking.metric} of a linear probe on {ranking.images} validation images, ± one standard error"
    if any(one.probe and one.probe.weights["kind"] == "none" for one in ranking.candidates):
        yield "the scores are of random weights, as model.weights = none asks: pretrained ones would order them otherwise"
    if ranking.where:
        stand_in = f", which stands in for the target: {ranking.stand_in_reason}" if ranking.stand_in_reason else ""
        yield f"latency: milliseconds at batch 1, a quick look, on {ranking.where}{stand_in}"
    yield ""
    yield from _table([HEADER, *(_row(candidate, ranking) for candidate in ranking.candidates)])
    yield ""
    yield from _notes(ranking)
    yield f"{'recommended: ' if ranking.recommended else ''}{ranking.reason}"


def _row(candidate: Candidate, ranking: Ranking) -> tuple[str, ...]:
    name, cost = candidate.backbone, candidate.cost
    mark = TAKEN if name == ranking.recommended else ON_FRONT if name in ranking.front else ""
    times = []
    for precision in ("int8", "fp32"):
        timing = cost.timings.get(precision) if cost else None
        restless = RESTLESS if timing and timing.spread_percent >= NOISY_SPREAD_PERCENT else ""
        times += [f"{timing.p50_ms:.2f}{restless}", f"{timing.p90_ms:.2f}"] if timing else ["-", "-"]
    return (
        mark,
        name,
        _score(candidate),
        (cost.shipped if cost else None) or "-",
        *times,
        f"{cost.parameters / 1e6:.2f} M" if cost else "-",
        f"{cost.macs / 1e6:.0f} M" if cost and cost.macs else "-",
        f"{candidate.timing.size_bytes / 1e6:.2f} MB" if candidate.timing else "-",
    )


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _notes(ranking: Ranking) -> Iterator[str]:
    """Yield what the table cannot say: marks, failures, int8 that does not pay, weights that are not here."""
    if ranking.front:
        yield f"{ON_FRONT} no other is both faster and better; {TAKEN} recommended"
    costs = [(one.backbone, one.cost) for one in ranking.candidates if one.cost]
    if any(timing.spread_percent >= NOISY_SPREAD_PERCENT for _, cost in costs for timing in cost.timings.values()):
        yield f"{RESTLESS} the rounds spread by {NOISY_SPREAD_PERCENT:.0f} % or more: the machine was restless, see --remeasure"
    if slow := [name for name, cost in costs if _no_gain(cost)]:
        yield f"int8 is not faster than fp32: {', '.join(slow)}; what `ships` is what counts"
    for one in ranking.candidates:
        for fault in one.faults:
            yield f"{one.backbone}: {fault}"
    for one in ranking.candidates:
        if one.get:
            yield f"weights not at hand: {one.backbone} ({one.get})"


def _no_gain(cost: Cost) -> bool:
    int8, fp32 = cost.timings.get("int8"), cost.timings.get("fp32")
    return int8 is not None and fp32 is not None and int8.p50_ms >= fp32.p50_ms


def draw_front(ranking: Ranking, path: Path) -> None:
    """Draw scores against latency, with the line that joins the front.

    Args:
        ranking: candidates without a score or a latency are left out.
        path: of the PNG file, 1000 x 650 pixels.

    Raises:
        ValueError: no candidate has both.
    """
    points = {one.backbone: (one.timing.p50_ms, one.probe) for one in ranking.candidates if one.timing and one.probe}
    if not points:
        raise ValueError("no candidate is both scored and timed: there is nothing to draw")
    with figure_at(path, 1000, 650) as figure:
        axes = figure.subplots()
        front = [(points[name][0], points[name][1].score) for name in ranking.front]
        axes.plot(*zip(*front, strict=True), color=VERMILLION, linewidth=1.4, zorder=1, label="front")
        for name, (x, probe) in points.items():
            colour = VERMILLION if name in ranking.front else BLUE
            marker = "o" if name in ranking.front else "s"
            axes.errorbar([x], [probe.score], [probe.standard_error], color=colour, marker=marker, linewidth=1, capsize=3)
            bold = "bold" if name == ranking.recommended else "normal"
            axes.annotate(name, (x, probe.score), (7, -13), textcoords="offset points", fontsize=9, fontweight=bold)
        if ranking.recommended:
            x, probe = points[ranking.recommended]
            axes.plot([x], [probe.score], "o", markersize=14, markerfacecolor="none", markeredgecolor=INK, label="recommended")
        _latency_axis(axes)
        device = "a stand-in for the target" if ranking.stand_in_reason else "the target"
        axes.set(xlabel=f"median latency at batch 1 on {device} (ms, logarithmic)")
        axes.set(ylabel=f"linear probe: {ranking.metric}, ± one standard error")
        axes.set_title(f"{ranking.source} at {ranking.image_size} px: backbones for {ranking.target}")
        axes.legend(loc="lower right")


def _latency_axis(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15, y=0.12)
