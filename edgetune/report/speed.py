"""How fast a model was, for a person: single queries as they were paced, parallel streams, energy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgetune.artefacts import Measurement
from edgetune.device.check import queries_in_words

__all__ = ["speed_lines"]


def speed_lines(measurement: Measurement) -> list[str]:
    """Return a line on the latency of each model, and on throughput and energy where they were measured."""
    return [line for name, model in measurement.raw["models"].items() for line in _lines(name, model)]


def _lines(name: str, model: Mapping[str, Any]) -> Iterator[str]:
    if latency := model.get("latency"):
        figures = ", ".join(f"{key} {latency[f'{key}_ms']:.3f} ms" for key in ("p50", "p90", "p99"))
        yield f"{name} latency at batch 1: {figures} ({queries_in_words(latency)})"
    found = model.get("throughput")
    if not found:
        return
    for stream in found["streams"]:
        count = stream["threads"]
        words = f"{count} stream" + ("s" if count > 1 else "")
        rate, spread = stream["images_per_second"], stream["spread_percent"]
        yield f"{name} throughput, {words} at batch 1: {rate:.1f} images/s (spread {spread:.1f} %, {stream['seconds']:.0f} s)"
        for sensor, drawn in (stream["energy"] or {}).items():
            idle = found["idle_watts"][sensor]
            yield f"  {sensor}: {1e3 * drawn['joules_per_image']:.3g} mJ per image, {drawn['watts']:.2f} W, idle {idle:.2f} W"
    if found["energy_skipped"]:
        yield f"{name} energy: SKIPPED: {found['energy_skipped']}"
