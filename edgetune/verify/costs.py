"""The rows about what a model costs: time, bytes, memory."""

from __future__ import annotations

from dataclasses import asdict

from edgetune.artefacts import Measurement, VerdictRow
from edgetune.verify.choose import Choice
from edgetune.verify.rows import against_fp32, skipped, undecided
from edgetune.verify.speed import noise, reduced, speed

__all__ = ["latency_against_fp32", "latency_budget", "memory_budget", "size_budget"]

NO_BUDGET = "neither the recipe nor the profile gives a budget"


def _not_the_target(measurement: Measurement) -> str:
    return "" if measurement.is_target else f"not measured on the target: {measurement.stand_in_reason}"


def latency_budget(measurement: Measurement, shipped: str, budget_ms: float | None) -> VerdictRow:
    """Judge the p90 of batch-1 latency of the shipped model against a budget; only the target's own time counts."""
    name = f"{shipped} latency, p90"
    latency = measurement.raw["models"][shipped]["latency"]
    limit = f"≤ {budget_ms:g} ms" if budget_ms else ""
    quick = f" (quick: {latency['queries']} queries)" if latency and latency.get("quick") else ""
    figure = f"{latency['p90_ms']:.2f} ms{quick}" if latency else ""
    if budget_ms is None:
        return skipped("latency", name, NO_BUDGET, figure)
    if not measurement.is_target:
        return undecided("latency", name, _not_the_target(measurement), limit, figure)
    if latency is None:
        return undecided("latency", name, "latency was not measured", limit)
    p90 = float(latency["p90_ms"])
    restless = noise(measurement)
    kept = p90 <= budget_ms
    return VerdictRow(
        kind="latency",
        name=name,
        verdict="INCONCLUSIVE" if restless else "KEPT" if kept else "BROKEN",
        figure=figure,
        limit=limit,
        reason=restless or ("" if kept else f"p90 is {p90 / budget_ms:.2f} times the budget"),
        data={"p90_ms": p90, "budget_ms": budget_ms, "queries": latency["queries"]},
    )


def latency_against_fp32(measurement: Measurement, choice: Choice) -> VerdictRow:
    """Judge whether a shipped model of a reduced precision is faster than fp32, which is what it was made for."""
    measured = speed(measurement)
    figure = "" if measured is None else str(measured)
    candidate = reduced(measurement.raw["models"]) or "int8"
    name = against_fp32(candidate, "latency")
    if choice.shipped == "fp32":
        return skipped("latency", name, f"fp32 is shipped: {choice.reason}", figure)
    if not measurement.is_target:
        return skipped("latency", name, _not_the_target(measurement), figure)
    if measured is None:
        return undecided("latency", name, f"{candidate} and fp32 were not timed side by side", "faster than fp32")
    faster = measured.high is not None and measured.high < 1
    if choice.demanded and not faster:
        return skipped(
            "latency", name, f"{candidate} is not measurably faster here, but the recipe asks for {candidate}", figure
        )
    certain = faster and not measured.noise
    return VerdictRow(
        kind="latency",
        name=name,
        verdict="KEPT" if certain else "INCONCLUSIVE",
        figure=figure,
        limit="faster than fp32",
        reason="" if certain else measured.noise or "the rounds cannot tell which is faster",
        data=asdict(measured),
    )


def size_budget(shipped: str, size_bytes: int, budget_bytes: int | None) -> VerdictRow:
    """Judge the size of the shipped model's file."""
    return _bytes("size", f"{shipped} file", size_bytes, budget_bytes)


def memory_budget(measurement: Measurement, shipped: str, budget_bytes: int | None) -> VerdictRow:
    """Judge what the shipped model adds to a process at its peak."""
    name = f"{shipped} peak memory"
    footprint = measurement.raw["models"][shipped]["footprint"] or {}
    peak = footprint.get("peak_memory_bytes")
    figure = "" if peak is None else _megabytes(peak)
    limit = "" if budget_bytes is None else f"≤ {_megabytes(budget_bytes)}"
    if budget_bytes is not None and not measurement.is_target:
        return undecided("memory", name, _not_the_target(measurement), limit, figure)
    if budget_bytes is not None and peak is None:
        return undecided("memory", name, "the device did not report its peak memory", limit)
    if peak is None:
        return skipped("memory", name, NO_BUDGET)
    return _bytes("memory", name, int(peak), budget_bytes)


def _bytes(kind: str, name: str, got: int, budget: int | None) -> VerdictRow:
    figure = _megabytes(got)
    if budget is None:
        return skipped(kind, name, NO_BUDGET, figure)
    kept = got <= budget
    return VerdictRow(
        kind=kind,
        name=name,
        verdict="KEPT" if kept else "BROKEN",
        figure=figure,
        limit=f"≤ {_megabytes(budget)}",
        reason="" if kept else f"{got - budget} bytes over the budget",
        data={"bytes": got, "budget_bytes": budget},
    )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
