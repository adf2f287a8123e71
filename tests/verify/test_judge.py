from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest

from edgetune.artefacts import Measurement, NumericParity
from edgetune.device.heads import default_heads
from edgetune.recipe import Recipe
from edgetune.verify.choose import choose
from edgetune.verify.judge import judge
from edgetune.verify.limits import Limits, limits
from edgetune.verify.rows import other_decoders
from edgetune.verify.speed import noise, speed

IMAGES = 400
SIZES = {"fp32": 4_000_000, "int8": 1_100_000}
PARITY = NumericParity(images=64, max_abs=1e-5, nmse=1e-12, top1_agreement_percent=100.0, worst="cat/1.png")
LIMITS = Limits(
    parity_max_abs=1e-3,
    top1_drop_points=1.0,
    top1_agreement_percent=95.0,
    map_drop_points=1.0,
    rmse_increase_percent=5.0,
    golden_max_abs=0.5,
)
LABELS = np.arange(IMAGES) % 4
TARGETS = LABELS[:, None].astype(np.float32)
HEADS = default_heads(("blue", "green", "grey", "red"))
QUIET = {"architecture": "x86_64", "cores": 4, "logical_cores": 8, "load_average": [0.5, 0.5, 0.5], "governor": "performance"}
GOLDEN = {
    "images": 3,
    "decode": {"status": "exact", "max_pixel_difference": 0, "reason": ""},
    "logits": {"max_abs": 0.0, "bit_equal": True, "finite": True, "top1_changed": 0},
}


def times(scale: float) -> dict:
    rounds = [scale * (1 + 0.002 * math.sin(k)) for k in range(16)]
    return {"p50_ms": scale, "p90_ms": 1.1 * scale, "queries": 1024, "round_medians_ms": rounds, "spread_percent": 0.4}


class Lab:
    """A measurement as a runner leaves it, to be changed in one place by a test and then judged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        right = 5 * np.eye(4, dtype=np.float32)[LABELS]
        self.logits = {"fp32": right.copy(), "int8": right + np.float32(0.05)}
        self.models = {
            name: {
                "sha256": "0" * 64,
                "classes": 4,
                "eval": {"images": IMAGES, "finite": True, "constant": False},
                "latency": times(scale),
                "footprint": {"cold_start_ms": 5.0, "first_inference_ms": 1.0, "peak_memory_bytes": 9_000_000},
            }
            for name, scale in (("fp32", 3.0), ("int8", 1.5))
        }
        self.before, self.after = dict(QUIET), dict(QUIET)
        self.is_target = True
        self.golden = None

    def measurement(self) -> Measurement:
        for name in self.models:
            np.save(self.folder / f"logits-{name}.npy", self.logits[name])
        raw = {"models": self.models, "environment": self.before, "environment_after": self.after, "golden": self.golden}
        reason = "" if self.is_target else "processor lacks asimddp"
        return Measurement(where="a lab", is_target=self.is_target, stand_in_reason=reason, raw=copy.deepcopy(raw)).at(
            self.folder
        )

    def rows(self, precision: str = "auto", limits: Limits = LIMITS, **changes):
        measurement = self.measurement()
        sizes = {name: size for name, size in SIZES.items() if name in self.models}
        choice = choose(precision, measurement, sizes)
        given = {"heads": HEADS, "choice": choice, "limits": limits, "parity": PARITY, "sizes": sizes, **changes}
        return {(row.kind, row.name): row for row in judge(measurement, TARGETS, **given)}

    def row(self, kind: str, word: str, **how):
        (found,) = [row for (k, name), row in self.rows(**how).items() if k == kind and word in name]
        return found


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


def test_limits_come_from_the_recipe_and_else_from_the_profile(world):
    profile = world.profile.model_copy(
        update={"budget": world.profile.budget.model_copy(update={"size_bytes": 7, "latency_p90_ms": 9.0})}
    )
    found = limits(Recipe.load(None, ["verify.latency_p90_ms=4.5", "verify.top1_drop_points=0.25"]), profile)
    assert (found.latency_p90_ms, found.size_bytes, found.top1_drop_points) == (4.5, 7, 0.25)
    assert found.top1_agreement_percent == profile.tolerance.top1_agreement_percent
    assert (found.map_drop_points, found.rmse_increase_percent) == (0.25, 5.0)
    assert found.peak_memory_bytes is None
