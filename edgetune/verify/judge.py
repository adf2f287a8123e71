"""From what was measured to verdicts: one row per check, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Measurement, NumericParity, VerdictRow
from edgetune.verify import costs, rows
from edgetune.verify.choose import Choice
from edgetune.verify.limits import Limits

if TYPE_CHECKING:
    import numpy.typing as npt
    from numpy import int64

__all__ = ["judge"]


def judge(
    measurement: Measurement,
    labels: npt.NDArray[int64],
    *,
    choice: Choice,
    limits: Limits,
    parity: NumericParity | None,
    sizes: Mapping[str, int],
) -> tuple[VerdictRow, ...]:
    """Return the verdicts on a build.

    Args:
        measurement: of `fp32`, and of `int8` where it was built.
        labels: of the images measured, in their order; see `edgetune.verify.stage.measured_labels`.
        choice: which model is shipped.
        limits: what must hold.
        parity: of the fp32 file against torch; None for a file that a user brought along.
        sizes: bytes of each model's file.
    """
    return (
        rows.numeric_export(measurement, parity, limits.parity_max_abs),
        *(rows.sane_outputs(measurement, name) for name in measurement.raw["models"]),
        *_against_fp32(measurement, labels, choice, limits),
        costs.latency_budget(measurement, choice.shipped, limits.latency_p90_ms),
        costs.latency_against_fp32(measurement, choice),
        costs.size_budget(choice.shipped, sizes[choice.shipped], limits.size_bytes),
        costs.memory_budget(measurement, choice.shipped, limits.peak_memory_bytes),
        *_golden(measurement.raw.get("golden"), limits.golden_max_abs),
    )


def _against_fp32(
    measurement: Measurement, labels: npt.NDArray[int64], choice: Choice, limits: Limits
) -> tuple[VerdictRow, VerdictRow]:
    """Return the rows that compare the shipped int8 model's decisions with fp32's, or say why there is nothing to compare."""
    models = measurement.raw["models"]
    if choice.shipped == "int8" and "fp32" not in models:
        reason = "the fp32 model was not measured beside it"
        return rows.undecided("decision", rows.DECISION, reason), rows.undecided("accuracy", rows.ACCURACY, reason)
    reason = ""
    if choice.shipped == "fp32":
        reason = "fp32 itself is shipped"
    elif not all(rows.has_numbers(measurement, name) for name in ("fp32", "int8")):
        reason = "logits are not numbers; see the rows above"
    if reason:
        return rows.skipped("decision", rows.DECISION, reason), rows.skipped("accuracy", rows.ACCURACY, reason)
    fp32, int8 = (measurement.logits(name).argmax(axis=1) for name in ("fp32", "int8"))
    return (
        rows.decision(fp32, int8, limits.top1_agreement_percent),
        rows.accuracy(fp32 == labels, int8 == labels, limits.top1_drop_points),
    )


def _golden(golden: dict[str, Any] | None, limit: float) -> tuple[VerdictRow, ...]:
    return () if golden is None else (rows.golden_decoding(golden), rows.golden_logits(golden, limit))
