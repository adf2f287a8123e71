"""Which of the built models is shipped, and how fast one is against the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.verify.choose import choose
from edgetune.verify.speed import speed

from .lab import SIZES, Lab, times


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_int8_is_shipped_when_it_is_faster_and_the_reason_has_both_numbers(lab):
    choice = choose("auto", lab.measurement(), SIZES)
    assert choice.shipped == "int8"
    assert "2.00x as fast as fp32" in choice.reason
    assert "1.10 MB" in choice.reason


def test_fp32_is_shipped_when_int8_is_slower_on_the_target(lab):
    lab.models["int8"]["latency"] = times(3.3)
    choice = choose("auto", lab.measurement(), SIZES)
    assert choice.shipped == "fp32"
    assert "0.91x as fast" in choice.reason
    row = lab.row("latency", "↔")
    assert row.verdict == "SKIPPED"
    assert "0.91x" in row.reason
    assert ("size", "fp32 file") in lab.rows()


@pytest.mark.parametrize("spoil", ["stand-in", "noise", "untimed"])
def test_weak_evidence_against_int8_does_not_change_what_is_shipped(lab, spoil):
    lab.models["int8"]["latency"] = None if spoil == "untimed" else times(3.15)
    lab.is_target = spoil != "stand-in"
    lab.before["load_average"] = [99.0 if spoil == "noise" else 0.0, 0.0, 0.0]
    assert choose("auto", lab.measurement(), SIZES).shipped == "int8"


def test_fp32_is_shipped_where_int8_is_slower_by_more_than_any_disturbance(lab):
    lab.models["int8"]["latency"] = times(5.0)
    lab.before["load_average"] = [99.0, 0.0, 0.0]
    assert speed(lab.measurement()).noise
    assert choose("auto", lab.measurement(), SIZES).shipped == "fp32"
    lab.is_target = False
    assert choose("auto", lab.measurement(), SIZES).shipped == "int8"


def test_the_recipe_may_insist(lab):
    lab.models["int8"]["latency"] = times(3.3)
    assert choose("int8", lab.measurement(), SIZES).shipped == "int8"
    assert choose("fp32", lab.measurement(), SIZES).shipped == "fp32"
    row = lab.row("latency", "↔", precision="int8")
    assert (row.verdict, "asks for int8" in row.reason) == ("SKIPPED", True)


def test_half_precision_is_judged_as_int8_is(lab):
    lab.models["fp16"], lab.logits["fp16"] = lab.models.pop("int8"), lab.logits.pop("int8")
    sizes = {"fp32": 4_000_000, "fp16": 2_000_000}
    choice = choose("auto", lab.measurement(), sizes)
    assert choice.shipped == "fp16"
    assert "fp16 is 2.00x as fast as fp32" in choice.reason
    rows = lab.rows(choice=choice, sizes=sizes)
    for row in (("decision", "fp16 ↔ fp32 decisions"), ("accuracy", "fp16 ↔ fp32 top-1"), ("latency", "fp16 ↔ fp32 latency")):
        assert rows[row].verdict == "KEPT"
    lab.models["fp16"]["latency"] = times(3.3)
    assert choose("auto", lab.measurement(), sizes).shipped == "fp32"


def test_fp32_is_shipped_where_nothing_else_was_built(lab):
    assert choose("auto", lab.measurement(), {"fp32": 4}).shipped == "fp32"


def test_a_precision_that_was_not_built_cannot_be_shipped(lab):
    with pytest.raises(ValueError, match="built: fp32"):
        choose("int8", lab.measurement(), {"fp32": 4})


def test_speed_is_the_ratio_of_rounds_with_bounds(lab):
    measured = speed(lab.measurement())
    assert measured.ratio == pytest.approx(0.5)
    assert measured.low <= measured.ratio <= measured.high
    assert measured.rounds == 16


def test_too_few_rounds_leave_the_speed_open(lab):
    for model in lab.models.values():
        model["latency"]["round_medians_ms"] = model["latency"]["round_medians_ms"][:3]
    assert (speed(lab.measurement()).low, speed(lab.measurement()).high) == (0.0, None)
    assert lab.row("latency", "↔").verdict == "INCONCLUSIVE"
