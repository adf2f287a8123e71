"""Which of the models is shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from edgetune.artefacts import Measurement, Precision
from edgetune.verify.speed import Speed, speed

__all__ = ["Choice", "choose"]

CLEARLY_SLOWER = 1.1
"""Rounds that take turns share what disturbs them: a bound so far off is no accident, however restless the machine."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The model that goes into the bundle.

    Attributes:
        shipped: its precision.
        reason: why that one, in one sentence.
        demanded: whether the recipe left no choice.
    """

    shipped: Precision
    reason: str
    demanded: bool


def choose(precision: Literal["auto", "int8", "fp16", "fp32"], measurement: Measurement, sizes: Mapping[str, int]) -> Choice:
    """Return which model to ship.

    fp32 is preferred only on evidence: measured on the target itself, the reduced precision is not faster; on a disturbed
    machine it has to be slower by more than the disturbance explains.
    Anything less leaves the choice, and so the bundle, to the recipe rather than to the weather of one measurement.

    Args:
        precision: the recipe's wish.
        measurement: of every model that was built.
        sizes: bytes of each model's file.

    Raises:
        ValueError: the recipe wants a precision that was not built.
    """
    if precision != "auto" and precision not in sizes:
        raise ValueError(f"the recipe asks for {precision}; built: {', '.join(sizes)}")
    match precision:
        case "fp32":
            return Choice(shipped="fp32", reason="the recipe asks for fp32", demanded=True)
        case "int8" | "fp16":
            return Choice(shipped=precision, reason=f"the recipe asks for {precision}; {_size(sizes)}", demanded=True)
        case "auto":
            return _by_evidence(measurement, sizes)
        case _:
            assert_never(precision)


def _by_evidence(measurement: Measurement, sizes: Mapping[str, int]) -> Choice:
    candidate = _candidate(sizes)
    if candidate == "fp32":
        return Choice(shipped="fp32", reason="only fp32 was built for this target", demanded=False)
    measured = speed(measurement)
    if measured and _slower_on_target(measurement, measured):
        reason = (
            f"{candidate} is not faster on the target: {measured} (95 % bounds), so its rounding buys no speed; {_size(sizes)}"
        )
        return Choice(shipped="fp32", reason=reason, demanded=False)
    return Choice(shipped=candidate, reason=f"{_in_words(candidate, measurement, measured)}; {_size(sizes)}", demanded=False)


def _slower_on_target(measurement: Measurement, measured: Speed) -> bool:
    return measurement.is_target and measured.low >= (CLEARLY_SLOWER if measured.noise else 1)


def _in_words(candidate: str, measurement: Measurement, measured: Speed | None) -> str:
    if measured is None:
        return "latency was not measured"
    if not measurement.is_target:
        return f"latency on the target is unknown (on the stand-in {candidate} is {measured})"
    if measured.noise:
        return f"{candidate} is {measured}, but the measurement was disturbed: {measured.noise}"
    return f"{candidate} is {measured} on the target (95 % bounds)"


def _candidate(sizes: Mapping[str, int]) -> Precision:
    """Return the reduced precision that was built; fp32 where there is none."""
    return next((name for name in ("int8", "fp16") if name in sizes), "fp32")


def _size(sizes: Mapping[str, int]) -> str:
    words = f"its file is {sizes[_candidate(sizes)] / 1e6:.2f} MB"
    return f"{words}, that of fp32 {sizes['fp32'] / 1e6:.2f} MB" if "fp32" in sizes else words
