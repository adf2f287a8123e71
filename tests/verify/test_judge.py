"""Each row of the verdicts: when it is kept, broken, inconclusive or skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetune.recipe import Recipe
from edgetune.verify.limits import Limits, limits
from edgetune.verify.rows import other_decoders
from edgetune.verify.speed import noise

from .lab import GOLDEN, LABELS, LIMITS, PARITY, Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_a_good_build_is_kept_wherever_a_limit_is_known(lab):
    rows = lab.rows()
    assert {key: row.verdict for key, row in rows.items()} == {
        ("numeric", "torch ↔ ONNX fp32 logits"): "KEPT",
        ("numeric", "fp32 logits"): "KEPT",
        ("numeric", "int8 ↔ fp32 logits"): "KEPT",
        ("decision", "int8 ↔ fp32 decisions"): "KEPT",
        ("accuracy", "int8 ↔ fp32 top-1"): "KEPT",
        ("latency", "int8 latency, p90"): "SKIPPED",
        ("latency", "int8 ↔ fp32 latency"): "KEPT",
        ("size", "int8 file"): "SKIPPED",
        ("memory", "int8 peak memory"): "SKIPPED",
    }
    assert all(row.reason for row in rows.values() if row.verdict != "KEPT")


def test_an_export_that_changed_the_network_is_broken_and_names_the_worst_image(lab):
    row = lab.row("numeric", "torch", parity=PARITY.model_copy(update={"max_abs": 0.1}))
    assert row.verdict == "BROKEN"
    assert "cat/1.png" in row.reason
    assert row.data["relative"] == pytest.approx(0.02)


def test_a_file_without_a_torch_model_is_not_compared_with_one(lab):
    assert lab.row("numeric", "torch", parity=None).verdict == "SKIPPED"


@pytest.mark.parametrize(("key", "value", "word"), [("finite", False, "not numbers"), ("constant", True, "same logits")])
def test_outputs_that_are_not_numbers_or_never_change_are_broken(lab, key, value, word):
    lab.models["int8"]["eval"][key] = value
    row = lab.row("numeric", "int8 ↔ fp32")
    assert row.verdict == "BROKEN"
    assert word in row.reason


def test_logits_that_are_not_numbers_are_not_compared_further(lab):
    lab.models["int8"]["eval"]["finite"] = False
    lab.logits["int8"][0, 0] = np.nan
    assert lab.row("decision", "int8").verdict == "SKIPPED"
    assert lab.row("accuracy", "int8").verdict == "SKIPPED"


def test_changed_decisions_break_decision_and_accuracy(lab):
    lab.logits["int8"][:40] = 5 * np.eye(4, dtype=np.float32)[(LABELS[:40] + 1) % 4]
    decision, accuracy = lab.row("decision", "int8"), lab.row("accuracy", "int8")
    assert (decision.verdict, decision.data["percent"]) == ("BROKEN", 90.0)
    assert (accuracy.verdict, accuracy.data["lost"], accuracy.data["gained"]) == ("BROKEN", 40, 0)
    assert accuracy.data["drop_points"] == pytest.approx(10.0)


def test_the_tolerance_itself_is_within_the_tolerance(lab):
    lab.logits["int8"][:20] = 5 * np.eye(4, dtype=np.float32)[(LABELS[:20] + 1) % 4]
    assert lab.row("decision", "int8").verdict == "KEPT"


def test_a_missing_baseline_is_never_kept(lab):
    del lab.models["fp32"]
    rows = lab.rows(precision="int8")
    undecided = {kind for (kind, _), row in rows.items() if row.verdict == "INCONCLUSIVE"}
    assert undecided == {"decision", "accuracy", "latency"}


def test_fp32_alone_is_judged_against_itself_in_nothing(lab):
    del lab.models["int8"]
    rows = lab.rows()
    assert rows["decision", "int8 ↔ fp32 decisions"].verdict == "SKIPPED"
    assert rows["latency", "int8 ↔ fp32 latency"].verdict == "SKIPPED"
    assert ("size", "fp32 file") in rows


@pytest.mark.parametrize(("budget", "verdict"), [(2.0, "KEPT"), (1.66, "KEPT"), (1.64, "BROKEN")])
def test_a_latency_budget_is_held_against_p90(lab, budget, verdict):
    given = Limits(**{**vars(LIMITS), "latency_p90_ms": budget})
    assert lab.row("latency", "p90", limits=given).verdict == verdict


def test_times_of_a_stand_in_are_not_judged(lab):
    lab.is_target = False
    given = Limits(**{**vars(LIMITS), "latency_p90_ms": 0.1, "peak_memory_bytes": 1})
    # A budget that was given and cannot be judged leaves a question open; a comparison that nobody asked for does not.
    wanted = {("latency", "p90"): "INCONCLUSIVE", ("latency", "↔"): "SKIPPED", ("memory", "peak"): "INCONCLUSIVE"}
    for (kind, word), verdict in wanted.items():
        row = lab.row(kind, word, limits=given)
        assert (row.verdict, "asimddp" in row.reason) == (verdict, True)
        assert row.figure


@pytest.mark.parametrize(
    ("before", "after"), [({"load_average": [17.0, 9.0, 3.0]}, {}), ({}, {"governor": "powersave"}), ({}, {"throttled": True})]
)
def test_a_restless_machine_makes_latency_inconclusive(lab, before, after):
    lab.before.update(before)
    lab.after.update(after)
    given = Limits(**{**vars(LIMITS), "latency_p90_ms": 0.1})
    assert {lab.row("latency", word, limits=given).verdict for word in ("p90", "↔")} == {"INCONCLUSIVE"}
    assert noise(lab.measurement())


def test_rounds_that_spread_are_named(lab):
    lab.models["int8"]["latency"]["spread_percent"] = 31.0
    row = lab.row("latency", "↔")
    assert row.verdict == "INCONCLUSIVE"
    assert "int8 spread by 31 %" in row.reason


@pytest.mark.parametrize(
    ("key", "field", "budget", "verdict"),
    [
        ("size", "size_bytes", 1_100_000, "KEPT"),
        ("size", "size_bytes", 1_099_999, "BROKEN"),
        ("memory", "peak_memory_bytes", 9_000_000, "KEPT"),
        ("memory", "peak_memory_bytes", 8_999_999, "BROKEN"),
    ],
)
def test_budgets_in_bytes(lab, key, field, budget, verdict):
    assert lab.row(key, "int8", limits=Limits(**{**vars(LIMITS), field: budget})).verdict == verdict


def test_a_device_that_hides_its_memory_leaves_a_memory_budget_open(lab):
    lab.models["int8"]["footprint"]["peak_memory_bytes"] = None
    assert lab.row("memory", "peak", limits=Limits(**{**vars(LIMITS), "peak_memory_bytes": 1})).verdict == "INCONCLUSIVE"
    assert lab.row("memory", "peak").verdict == "SKIPPED"


@pytest.mark.parametrize(
    ("decode", "logits", "verdicts"),
    [
        ({}, {}, ("KEPT", "KEPT")),
        ({"status": "different", "max_pixel_difference": 3, "reason": "pixels differ"}, {}, ("BROKEN", "KEPT")),
        ({"status": "skipped", "max_pixel_difference": None, "reason": "no Pillow"}, {}, ("SKIPPED", "KEPT")),
        ({}, {"max_abs": 0.2, "bit_equal": False}, ("KEPT", "KEPT")),
        ({}, {"max_abs": 0.6, "bit_equal": False}, ("KEPT", "BROKEN")),
        ({}, {"max_abs": 0.1, "bit_equal": False, "top1_changed": 1}, ("KEPT", "BROKEN")),
        ({}, {"max_abs": None, "bit_equal": False, "finite": False}, ("KEPT", "BROKEN")),
    ],
)
def test_golden_images(lab, decode, logits, verdicts):
    lab.golden = {**GOLDEN, "decode": {**GOLDEN["decode"], **decode}, "logits": {**GOLDEN["logits"], **logits}}
    rows = lab.rows()
    assert (rows["golden", "golden images decoded"].verdict, rows["golden", "golden logits"].verdict) == verdicts


def test_other_ways_of_decoding_are_told_and_not_judged():
    skipped = {"status": "skipped", "what": "no", "images": 0, "max_pixel_difference": None, "decisions_changed": None}
    far = {"status": "different", "what": "by areas", "images": 3, "max_pixel_difference": 7, "decisions_changed": 1}
    near = {**far, "status": "exact", "what": "alike", "max_pixel_difference": 0, "decisions_changed": 0}
    found = other_decoders({"decoders": {"pillow": near, "opencv": near, "opencv-resize": far, "numpy": skipped}})
    assert [row.name for row in found] == ["golden images, opencv", "golden images, opencv-resize"]
    assert {row.verdict for row in found} == {"SKIPPED"}
    assert found[0].figure == "the same pixels, 3 images"
    assert "up to 7 of 255 apart, 1 decisions changed" in found[1].figure
    assert "by areas" in found[1].reason
    assert other_decoders({}) == ()


def test_limits_come_from_the_recipe_and_else_from_the_profile(world):
    profile = world.profile.model_copy(
        update={"budget": world.profile.budget.model_copy(update={"size_bytes": 7, "latency_p90_ms": 9.0})}
    )
    found = limits(Recipe.load(None, ["verify.latency_p90_ms=4.5", "verify.top1_drop_points=0.25"]), profile)
    assert (found.latency_p90_ms, found.size_bytes, found.top1_drop_points) == (4.5, 7, 0.25)
    assert found.top1_agreement_percent == profile.tolerance.top1_agreement_percent
    assert (found.map_drop_points, found.rmse_increase_percent) == (0.25, 5.0)
    assert found.peak_memory_bytes is None
