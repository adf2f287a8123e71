"""Numbers as a person reads them, and cells that cannot break a table: shared by all drawings of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["bullets", "cell", "megabytes", "metrics", "milliseconds", "number", "queries", "table"]


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with a fixed number of digits, a dash if there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Return a time in milliseconds, with its unit."""
    return "-" if value is None else f"{value:.2f} ms"


def megabytes(value: float | None) -> str:
    """Return a size in bytes as megabytes (1 MB = 10⁶ bytes)."""
    return "-" if value is None else f"{value / 1e6:.2f} MB"


def queries(costs: Mapping[str, float | None]) -> str:
    """Return how many queries a latency rests on, and whether that is few."""
    count = costs.get("queries")
    return number(count, 0) + (" (quick)" if costs.get("quick_queries") else "")


def metrics(figures: Mapping[str, float]) -> str:
    """Return figures whose names end with their unit, as `top-1 %`, on one line: `top-1 87.30 %`."""
    parts = [
        f"{name.removesuffix(' %')} {value:.2f} %" if name.endswith(" %") else f"{name} {value:.4g}"
        for name, value in figures.items()
    ]
    return ", ".join(parts)


def cell(text: object) -> str:
    """Return text that cannot end a Markdown cell, start markup, or break a line: class names come from folder names."""
    flat = " ".join(str(text).split())
    for sign in "\\`|*_[]<>":
        flat = flat.replace(sign, f"\\{sign}")
    return flat


def table(header: Sequence[str], rows: Sequence[Sequence[object]], numeric: int = 0) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        header: the titles of the columns.
        rows: the cells; they are escaped here.
        numeric: how many columns, counted from the right, are aligned to the right.
    """
    marks = ["---"] * (len(header) - numeric) + ["--:"] * numeric
    return [f"| {' | '.join(line)} |" for line in (header, marks, *([cell(value) for value in row] for row in rows))]


def bullets(facts: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """Yield facts as nested Markdown bullets, whatever JSON types a stage reports."""
    for key, value in facts.items():
        label = f"{'  ' * depth}- {cell(str(key).replace('_', ' '))}"
        if isinstance(value, Mapping) and value:
            yield f"{label}:"
            yield from bullets(value, depth + 1)
        elif isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
            yield f"{label}:"
            for position, item in enumerate(value, start=1):
                yield f"{'  ' * (depth + 1)}- {position}. {cell(_inline(item))}"
        else:
            yield f"{label}: {cell(_inline(value))}"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        named = sorted(value.items(), key=lambda item: item[0] != "name")
        return ", ".join(f"{str(key).replace('_', ' ')} {_inline(inner)}" for key, inner in named) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_inline(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value in (None, "") else str(value)
