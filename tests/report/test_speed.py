"""Latency, throughput and energy in words."""

from __future__ import annotations

from edgetune.artefacts import Measurement
from edgetune.report.speed import speed_lines

LATENCY = {"p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0, "queries": 64, "quick": True, "period_ms": 20.0, "cut_short": False}
STREAM = {"threads": 2, "images_per_second": 500.0, "spread_percent": 1.5, "seconds": 15.0, "energy": None}


def lines(**model: object) -> list[str]:
    return speed_lines(Measurement(where="a board", is_target=True, stand_in_reason="", raw={"models": {"int8": model}}))


def test_pace_and_streams_and_why_there_is_no_energy():
    throughput = {"streams": [STREAM], "idle_watts": None, "energy_skipped": "no sensor"}
    assert lines(latency=LATENCY, throughput=throughput) == [
        "int8 latency at batch 1: p50 1.000 ms, p90 2.000 ms, p99 3.000 ms (64 queries, one every 20 ms, quick: a look, not a "
        "measurement)",
        "int8 throughput, 2 streams at batch 1: 500.0 images/s (spread 1.5 %, 15 s)",
        "int8 energy: SKIPPED: no sensor",
    ]


def test_every_sensor_has_a_line_with_what_idling_draws():
    stream = {**STREAM, "energy": {"hwmon ina VDD": {"joules_per_image": 0.0042, "watts": 2.1}}}
    throughput = {"streams": [stream], "idle_watts": {"hwmon ina VDD": 0.9}, "energy_skipped": ""}
    assert lines(throughput=throughput)[1:] == ["  hwmon ina VDD: 4.2 mJ per image, 2.10 W, idle 0.90 W"]


def test_what_was_not_measured_has_no_line():
    assert lines(latency=None) == []
