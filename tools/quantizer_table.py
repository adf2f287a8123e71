"""The table of `bench_quantize.py`: a row for each quantizer, means over the seeds with their extremes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from int8_figures import Ratio, ratio
from quantizers import Made

__all__ = ["FP32", "Row", "markdown"]

FP32 = "fp32"
HEAD = ("quantizer", "top-1 %", "agreement %", "KL, nats", "NMSE", "seconds", "p50 ms", "/ fp32", "/ ORT U8S8", "float layers")
COLLAPSED_PERCENT = 50.0
"""Below this share of fp32's decisions a file is called collapsed."""


@dataclass
class Row:
    """One quantizer's results.

    Attributes:
        name: of the quantizer.
        made: what it made, per seed.
        figures: of each file that could be run.
        p50_ms: latency of each.
        to_fp32: its own latency and fp32's, medians of the same round in ms, of all seeds.
        to_ort: its own latency and that of ONNX Runtime's U8S8 file, likewise; empty without such a file.
    """

    name: str
    made: list[Made] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    to_fp32: list[tuple[float, float]] = field(default_factory=list)
    to_ort: list[tuple[float, float]] = field(default_factory=list)

    def ratios(self) -> dict[str, Ratio]:
        """Return the ratios of latency that rounds were measured for."""
        pairs = {"latency_to_fp32": self.to_fp32, "latency_to_ort": self.to_ort}
        return {name: ratio(some) for name, some in pairs.items() if some}

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        made = [{**asdict(entry), "path": entry.path and str(entry.path)} for entry in self.made]
        ratios = {name: asdict(found) for name, found in self.ratios().items()}
        return {"name": self.name, "made": made, "figures": self.figures, "p50_ms": self.p50_ms, **ratios}


def spread(values: list[float], digits: int) -> str:
    """Return the mean of a figure over the seeds, with the extremes where there are several."""
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def markdown(rows: Iterable[Row]) -> str:
    """Return the table for a person."""
    lines = [HEAD, ("---",) * len(HEAD), *([row.name, *_cells(row)] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> list[str]:
    failures = [f"failed: {made.failure}" for made in row.made if made.failure]
    if not row.figures:
        return failures[:1] + [""] * (len(HEAD) - 2)
    ratios = row.ratios()
    speed = [spread(row.p50_ms, 3), *(str(ratios.get(name, "")) for name in ("latency_to_fp32", "latency_to_ort"))]
    top1 = spread(_column(row.figures, "top1_percent"), 2)
    if row.name == FP32:
        return [top1, "", "", "", "", *speed, ""]
    agreement = spread(_column(row.figures, "agreement_percent"), 2)
    if min(_column(row.figures, "agreement_percent")) < COLLAPSED_PERCENT:
        agreement += " **collapsed**"
    distances = [spread(_column(row.figures, name), 4) for name in ("kl_nats", "nmse")]
    seconds = spread([made.seconds for made in row.made if made.path], 1)
    layers = spread([float(len(figures["float_layers"])) for figures in row.figures], 0)
    # A failure with some seeds only must not be hidden by the others.
    return [top1, agreement, *distances, seconds, *speed, "; ".join([layers, *failures])]


def _column(figures: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float(entry[name]) for entry in figures]
