"""How fast a reduced precision is against fp32, and whether the machine was quiet enough to say so."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgetune.artefacts import Measurement
from edgetune.verify.statistics import hodges_lehmann

__all__ = ["Speed", "noise", "reduced", "speed"]

NOISY_SPREAD_PERCENT = 10.0
BUSY_LOAD_PER_CORE = 2.0
"""Above this the machine has other work. The build's own training leaves about 1 behind, so 1 would accuse it."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The latency of the reduced precision over that of fp32, from rounds that took turns.

    Attributes:
        ratio: below 1, the reduced precision is faster.
        low: with 95 % confidence the ratio is above this; 0 where too few rounds say nothing.
        high: with 95 % confidence the ratio is below this; None where too few rounds say nothing.
        rounds: the pairs that this rests on.
        noise: why the rounds are not to be trusted; empty if they are.
    """

    ratio: float
    low: float
    high: float | None
    rounds: int
    noise: str

    def __str__(self) -> str:
        """Return the speed for a person: `1.68x as fast as fp32 [1.66, 1.70]`."""
        fastest = f"{1 / self.low:.2f}" if self.low else "?"
        slowest = f"{1 / self.high:.2f}" if self.high else "?"
        return f"{1 / self.ratio:.2f}x as fast as fp32 [{slowest}, {fastest}]"


def reduced(models: Iterable[str]) -> str:
    """Return the precision that was built beside fp32: int8 or fp16; empty where there is none."""
    return next((name for name in models if name != "fp32"), "")


def speed(measurement: Measurement) -> Speed | None:
    """Return the paired latency of the reduced precision against `fp32`, or None if either was not timed."""
    other, fp32 = (_round_medians_ms(measurement, name) for name in (reduced(measurement.raw["models"]), "fp32"))
    if not other or not fp32:
        return None
    shift = hodges_lehmann([math.log(a / b) for a, b in zip(other, fp32, strict=True)])
    return Speed(
        ratio=math.exp(shift.estimate),
        low=math.exp(shift.low),
        high=math.exp(shift.high) if math.isfinite(shift.high) else None,
        rounds=shift.pairs,
        noise=noise(measurement),
    )


def _round_medians_ms(measurement: Measurement, name: str) -> list[float]:
    model = measurement.raw["models"].get(name) or {}
    return list((model.get("latency") or {}).get("round_medians_ms", ()))


def noise(measurement: Measurement) -> str:
    """Return why the machine was too restless for its times to count, in one sentence; empty if it was quiet."""
    reasons = []
    for name, model in sorted(measurement.raw["models"].items()):
        latency = model.get("latency")
        if latency and latency["spread_percent"] >= NOISY_SPREAD_PERCENT:
            spread = f"{latency['spread_percent']:.0f} %"
            reasons.append(f"the rounds of {name} spread by {spread} (quiet is under {NOISY_SPREAD_PERCENT:.0f} %)")
    before, after = measurement.raw["environment"], measurement.raw["environment_after"]
    load, cores = _load(before), int(before.get("logical_cores") or before["cores"])
    if load is not None and load > BUSY_LOAD_PER_CORE * cores:
        reasons.append(f"other work ran on the machine (load {load:.1f} on {cores} hardware threads)")
    if before.get("governor") != after.get("governor"):
        reasons.append(f"the frequency governor changed from {before.get('governor')} to {after.get('governor')}")
    if before.get("throttled") or after.get("throttled"):
        reasons.append("the processor was slowed down by heat or a weak supply")
    return "; ".join(reasons)


def _load(environment: dict[str, Any]) -> float | None:
    """Return the load average of the last minute, if the device knows it."""
    averages = environment.get("load_average")
    return float(averages[0]) if averages else None
