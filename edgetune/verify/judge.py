"""From what was measured to verdicts: one row per check, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Head, Measurement, NumericParity, VerdictRow
from edgetune.verify import costs, rows, tasks
from edgetune.verify.choose import Choice
from edgetune.verify.limits import Limits
from edgetune.verify.speed import reduced

if TYPE_CHECKING:
    import numpy.typing as npt
    from numpy import float32

__all__ = ["judge"]


def judge(
    measurement: Measurement,
    targets: npt.NDArray[float32],
    *,
    heads: Sequence[Head],
    choice: Choice,
    limits: Limits,
    parity: NumericParity | None,
    sizes: Mapping[str, int],
    reference: str = "torch",
) -> tuple[VerdictRow, ...]:
    """Return the verdicts on a build.

    Args:
        measurement: of `fp32`, and of the reduced precision where one was built.
        targets: of the images measured, in their order; see `edgetune.verify.stage.measured_targets`.
        heads: what the columns of logits and targets mean.
        choice: which model is shipped.
        limits: what must hold.
        parity: of the fp32 file against its reference; None where there is none.
        sizes: bytes of each model's file.
        reference: what the fp32 file was made from, in a word or two.
    """
    return (
        rows.numeric_export(measurement, parity, limits.parity_max_abs, heads, reference),
        *(rows.sane_outputs(measurement, name, heads) for name in measurement.raw["models"]),
        *_against_fp32(measurement, targets, heads, choice, limits),
        costs.latency_budget(measurement, choice.shipped, limits.latency_p90_ms),
        costs.latency_against_fp32(measurement, choice),
        costs.size_budget(choice.shipped, sizes[choice.shipped], limits.size_bytes),
        costs.memory_budget(measurement, choice.shipped, limits.peak_memory_bytes),
        *_golden(measurement.raw.get("golden"), limits.golden_max_abs),
    )


def _against_fp32(
    measurement: Measurement, targets: npt.NDArray[float32], heads: Sequence[Head], choice: Choice, limits: Limits
) -> tuple[VerdictRow, ...]:
    """Return the rows that compare a shipped reduced precision with fp32, or say why there is nothing to compare."""
    models = measurement.raw["models"]
    candidate = reduced(models) or "int8"
    names = tasks.names_against_fp32(candidate)
    if choice.shipped != "fp32" and "fp32" not in models:
        reason = "the fp32 model was not measured beside it"
        return tuple(rows.undecided(kind, name, reason) for kind, name in tasks.row_names(heads, names))
    reason = ""
    if choice.shipped == "fp32":
        reason = "fp32 itself is shipped"
    elif not all(rows.has_numbers(measurement, name) for name in ("fp32", candidate)):
        reason = "logits are not numbers; see the rows above"
    if reason:
        return tuple(rows.skipped(kind, name, reason) for kind, name in tasks.row_names(heads, names))
    fp32, other = (measurement.logits(name) for name in ("fp32", candidate))
    return tuple(tasks.compared(fp32, other, targets, heads, limits, names))


def _golden(golden: dict[str, Any] | None, limit: float) -> tuple[VerdictRow, ...]:
    return () if golden is None else (rows.golden_decoding(golden), rows.golden_logits(golden, limit))
