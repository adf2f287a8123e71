"""Several devices that measured one bundle, for a person: a line for each, and the matrix of their agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgetune.artefacts import Measurement, VerdictRow
from edgetune.errors import EdgetuneError
from edgetune.report.compose import overall, standing
from edgetune.report.speed import speed_lines

__all__ = ["device_lines", "matrix_lines"]


class _Checked(Protocol):
    @property
    def measurement(self) -> Measurement: ...
    @property
    def verdicts(self) -> tuple[VerdictRow, ...]: ...


def device_lines(found: Mapping[str, _Checked | EdgetuneError]) -> list[str]:
    """Return the lines of each device: what it says overall, what is not kept, where it measured, or why it could not."""
    lines = []
    for name, one in found.items():
        if isinstance(one, EdgetuneError):
            lines += [f"{name}: not measured", *(f"  {line}" for line in str(one).splitlines())]
            continue
        lines.append(f"{name}: {overall(one.verdicts)}, {_latency(one.measurement)}{standing(one.measurement)}")
        if any(model.get("throughput") for model in one.measurement.raw["models"].values()):
            lines += [f"  {line}" for line in speed_lines(one.measurement)]
        lines += [
            f"  {row.verdict} {row.name}: {row.figure or row.reason}"
            for row in one.verdicts
            if row.verdict in ("BROKEN", "INCONCLUSIVE")
        ]
    return lines


def _latency(measurement: Measurement) -> str:
    (model,) = measurement.raw["models"].values()
    latency = model.get("latency")
    if not latency:
        return ""
    quick = f" (quick: {latency['queries']} queries)" if latency.get("quick") else ""
    return f"p50 {latency['p50_ms']:.3g} ms{quick}, "


def matrix_lines(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of all pairs: how many decisions agree, and the largest difference of two logits."""
    if not pairs:
        return []
    names = list(dict.fromkeys(name for pair in pairs for name in pair["devices"]))
    cells = {tuple(pair["devices"]): _cell(pair) for pair in pairs}
    width = max(map(len, (*names, *cells.values())))
    lines = [f"the same decisions, and the largest difference of two logits, on {pairs[0]['images']} images:"]
    lines.append("  ".join(text.ljust(width) for text in ("", *names[1:])).rstrip())
    for row, name in enumerate(names[:-1]):
        found = [cells.get((name, other), "") if column > row else "" for column, other in enumerate(names) if column]
        lines.append("  ".join(text.ljust(width) for text in (name, *found)).rstrip())
    lines += [
        f"{' and '.join(pair['devices'])} decide {pair['changed']} otherwise, where the best class leads by at most "
        f"{pair['changed_margin']:.3g}"
        for pair in pairs
        if pair["changed_margin"] is not None
    ]
    return lines


def _cell(pair: Mapping[str, Any]) -> str:
    if pair["bit_equal"]:
        return "bit-equal"
    return f"{pair['agreement_percent']:.2f} %, {pair['largest_difference']:.3g}"
