"""Figures and verdicts of several labels, of values and of several heads, on logits whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from edgetune.artefacts import Figures, Head, TaskFigures
from edgetune.device.heads import column_names
from edgetune.progress import Silent
from edgetune.recipe import VerifyRecipe
from edgetune.verify.choose import choose
from edgetune.verify.judge import judge
from edgetune.verify.limits import Limits
from edgetune.verify.metrics import figures_of_measurement, head_figures, task_figures
from edgetune.verify.rows import sane_outputs
from edgetune.verify.stage import measure, measured_targets
from edgetune.verify.tasks import compared, names_against_fp32, row_names

from .lab import LIMITS

NAN = np.nan
TAGS = Head("tags", "multi-label", ("dog", "cat", "none"), (0.5, 0.9, 0.5))
POSE = Head("pose", "regression", ("yaw", "pitch"))
COLOUR = Head("colour", "single-label", ("red", "blue"))


def test_figures_of_labels_counted_by_hand():
    # Probabilities: 0.88, 0.73, 0.27, 0.12; cat is decided from 0.9 on, so never.
    logits = np.array([[2, 2, -2], [1, 1, -2], [-1, -1, -2], [-2, -2, -2]], np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, NAN, 0]], np.float32)
    found = head_figures(TAGS, logits, targets)
    dog, cat, none = (found.per_label[name] for name in TAGS.columns)
    assert (dog["ap"], dog["precision"], dog["recall"], dog["f1"]) == (pytest.approx(5 / 6), 0.5, 0.5, 0.5)
    assert (cat["ap"], cat["precision"], cat["recall"], cat["threshold"]) == (0.5, 0.0, 0.0, 0.9)
    assert (cat["images"], cat["positives"]) == (3, 1)
    assert none["ap"] is None
    assert found.map_percent == pytest.approx(100 * (5 / 6 + 1 / 2) / 2)
    assert found.f1_macro == 0.25
    # Decided: dog of images 0 and 1. Right: dog of image 0. Missed: dog of image 2, cat of image 1. Of 11 known.
    assert found.f1_micro == pytest.approx(2 * 1 / (2 * 1 + 1 + 2))
    assert found.hamming_percent == pytest.approx(100 * 3 / 11)
    assert found.exact_percent == 50.0
    assert found.images == 4


def test_micro_f1_is_scikit_learns_where_all_is_known():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(50, 3)).astype(np.float32), (rng.random((50, 3)) < 0.4).astype(np.float32)
    head = Head("tags", "multi-label", ("a", "b", "c"))
    found = head_figures(head, logits, targets)
    assert found.f1_micro == pytest.approx(f1_score(targets, logits >= 0, average="micro"))
    assert found.f1_macro == pytest.approx(f1_score(targets, logits >= 0, average="macro"))


def test_labels_that_no_image_has_leave_no_precision():
    found = head_figures(TAGS, np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32))
    assert (found.map_percent, found.f1_macro, found.f1_micro) == (None, None, 0.0)


def test_figures_of_values_counted_by_hand():
    answers = np.array([[1, 10], [2, 10], [3, 10], [7, 10]], np.float32)
    targets = np.array([[1, 12], [2, NAN], [3, NAN], [5, 12]], np.float32)
    found = head_figures(POSE, answers, targets)
    assert found.per_value["yaw"] == {
        "images": 4,
        "mae": 0.5,
        "rmse": 1.0,
        "r2": pytest.approx(1 - 4 / 8.75),
        "bias": 0.5,
        "std": pytest.approx(np.sqrt(8.75 / 4)),
    }
    pitch = found.per_value["pitch"]
    assert (pitch["images"], pitch["mae"], pitch["bias"], pitch["r2"], pitch["std"]) == (2, 2.0, -2.0, None, 0.0)
    assert (found.mae, found.rmse, found.r2) == (1.25, 1.5, found.per_value["yaw"]["r2"])


def test_a_head_of_which_nothing_is_known_has_no_figures_and_the_others_their_own():
    heads = (COLOUR, POSE)
    logits = np.array([[5, 0, 1, 1], [0, 5, 1, 1], [0, 5, 1, 1]], np.float32)
    targets = np.array([[0, NAN, NAN], [NAN, NAN, NAN], [0, NAN, NAN]], np.float32)
    found = task_figures(logits, targets, heads)
    assert isinstance(found, TaskFigures)
    assert list(found.heads) == ["colour"]
    assert (found.heads["colour"].images, found.heads["colour"].top1_percent) == (2, 50.0)


def test_a_classifier_has_the_figures_that_it_always_had():
    found = task_figures(np.eye(2, dtype=np.float32), np.array([[0], [0]], np.float32), (COLOUR,))
    assert isinstance(found, Figures)
    assert found.top1_percent == 50.0


@pytest.mark.parametrize("targets", [np.zeros((3, 3), np.float32), np.zeros((2, 4), np.float32)])
def test_targets_that_do_not_fit_are_refused(targets):
    with pytest.raises(ValueError, match=r"logits \(2, 4\) and targets"):
        task_figures(np.zeros((2, 4), np.float32), targets, (COLOUR, POSE))


def many(images: int = 400):
    """Return logits and targets of three heads that a model gets nearly right: `[N, 2 + 3 + 2]` and `[N, 1 + 3 + 2]`."""
    rng = np.random.default_rng(5)
    colour, tags = rng.integers(0, 2, images), rng.integers(0, 2, (images, 3))
    pose = rng.normal((1000, 0), (20, 0.1), (images, 2))
    targets = np.column_stack([colour, tags, pose]).astype(np.float32)
    # Cat is decided at 0.9, so its logits lie around that threshold's 2.2.
    clear = 6.0 * tags - 3.0 + np.array([0, 2.2, 0])
    logits = np.column_stack([6 * np.eye(2)[colour], clear, pose + rng.normal(0, (5, 0.02), (images, 2))])
    return logits.astype(np.float32), targets


def verdicts(fp32, int8, targets, heads=(COLOUR, TAGS, POSE), **changes):
    limits = Limits(**{**vars(LIMITS), **changes})
    return {row.name: row for row in compared(fp32, int8, targets, heads, limits, names_against_fp32("int8"))}


def test_the_same_logits_are_kept_by_every_head():
    logits, targets = many()
    found = verdicts(logits, logits.copy(), targets)
    assert {name: row.verdict for name, row in found.items()} == {
        "colour: int8 ↔ fp32 decisions": "KEPT",
        "colour: int8 ↔ fp32 top-1": "KEPT",
        "tags: int8 ↔ fp32 decisions": "KEPT",
        "tags: int8 ↔ fp32 mAP": "KEPT",
        "pose: int8 ↔ fp32 values": "KEPT",
        "pose: int8 ↔ fp32 RMSE": "KEPT",
    }
    assert [(row.kind, name) for name, row in found.items()] == list(
        row_names((COLOUR, TAGS, POSE), names_against_fp32("int8"))
    )


def test_only_the_head_that_got_worse_is_broken():
    logits, targets = many()
    worse = logits.copy()
    worse[:40, :2] = worse[:40, 1::-1]
    found = verdicts(logits, worse, targets)
    assert {name for name, row in found.items() if row.verdict == "BROKEN"} == {
        "colour: int8 ↔ fp32 decisions",
        "colour: int8 ↔ fp32 top-1",
    }


def test_label_decisions_are_counted_per_label_of_an_image_at_its_threshold():
    logits, targets = many(100)
    moved = logits.copy()
    # Far from one half, but across cat's own threshold: sigmoid(1) = 0.73 < 0.9.
    cats = np.flatnonzero(targets[:, 2] == 1)[:30]
    moved[cats, 3] = 1.0
    row = verdicts(logits, moved, targets)["tags: int8 ↔ fp32 decisions"]
    assert (row.verdict, row.data["percent"], row.data["images_percent"]) == ("BROKEN", 90.0, 70.0)
    assert row.reason == "30 of 300 decisions changed"


def test_the_mean_average_precision_that_fell_is_broken_and_its_drop_is_told():
    logits, targets = many()
    worse = logits.copy()
    worse[:, 2] = -worse[:, 2]
    row = verdicts(logits, worse, targets)["tags: int8 ↔ fp32 mAP"]
    before, after = (task_figures(some, targets, (COLOUR, TAGS, POSE)).heads["tags"].map_percent for some in (logits, worse))
    assert row.verdict == "BROKEN"
    assert row.data["estimate"] == pytest.approx(before - after, abs=1e-4)
    assert row.data["low"] < row.data["estimate"] < row.data["high"]


def test_too_few_images_cannot_confirm_a_small_tolerance_of_precision():
    logits, targets = many(100)
    row = verdicts(logits, logits, targets)["tags: int8 ↔ fp32 mAP"]
    assert (row.verdict, "299 are the least" in row.reason) == ("INCONCLUSIVE", True)
    assert verdicts(logits, logits, targets, map_drop_points=3.0)["tags: int8 ↔ fp32 mAP"].verdict == "KEPT"


def test_values_are_judged_in_their_own_units():
    logits, targets = many()
    moved = logits.copy()
    # 0.03 is nothing to yaw, whose truth varies by 20, and 0.3 standard deviations of pitch.
    moved[:, 5:] += 0.03
    row = verdicts(logits, moved, targets)["pose: int8 ↔ fp32 values"]
    assert (row.verdict, "(pitch)" in row.figure, row.limit) == ("BROKEN", True, "≤ 0.224")
    assert row.data["apart"]["yaw"] == pytest.approx(0.03 / targets[:, 4].std(), rel=1e-2)
    assert row.data["apart"]["pitch"] == pytest.approx(0.03 / targets[:, 5].std(), rel=1e-3)


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, "KEPT"), (1.02, "KEPT"), (1.2, "BROKEN")])
def test_the_error_of_the_worst_value_decides(factor, verdict):
    logits, targets = many()
    grown = logits.copy()
    grown[:, 6] = targets[:, 5] + factor * (logits[:, 6] - targets[:, 5])
    row = verdicts(logits, grown, targets)["pose: int8 ↔ fp32 RMSE"]
    values = row.data["values"]
    assert row.verdict == verdict
    assert values["pitch"]["estimate"] == pytest.approx(100 * (factor - 1), abs=1e-2)
    assert values["yaw"]["estimate"] == 0.0
    assert ("(pitch)" in row.figure) == (factor > 1)


def test_an_error_that_grew_by_about_the_tolerance_is_left_open():
    logits, targets = many()
    grown = logits.copy()
    # Noise of a third of the error of 0.02 adds a tenth of its square.
    grown[:, 6] += np.random.default_rng(2).normal(0, 0.0064, len(logits)).astype(np.float32)
    assert verdicts(logits, grown, targets)["pose: int8 ↔ fp32 RMSE"].verdict == "INCONCLUSIVE"


def test_an_error_that_was_zero_is_no_division_by_it():
    targets = np.arange(40, dtype=np.float32)[:, None]
    head = (Head("age", "regression", ("age",)),)
    names = ["int8 ↔ fp32 values", "int8 ↔ fp32 RMSE"]
    same = verdicts(targets, targets.copy(), targets, head)
    assert [same[name].verdict for name in names] == ["KEPT", "KEPT"]
    assert same[names[1]].data["values"]["age"]["estimate"] == 0.0
    worse = verdicts(targets, targets + np.float32(0.01), targets, head)
    assert [worse[name].verdict for name in names] == ["KEPT", "BROKEN"]


def test_what_nobody_knows_is_left_open():
    logits, targets = many(50)
    found = verdicts(logits, logits, np.full_like(targets, NAN))
    assert {name.split()[-1]: row.verdict for name, row in found.items() if row.kind == "accuracy"} == {
        "top-1": "INCONCLUSIVE",
        "mAP": "INCONCLUSIVE",
        "RMSE": "INCONCLUSIVE",
    }
    assert found["pose: int8 ↔ fp32 values"].verdict == "KEPT"


def test_images_without_a_label_do_not_count_for_its_head():
    logits, targets = many(600)
    spoilt, partly = logits.copy(), targets.copy()
    spoilt[:200] = spoilt[::-1][:200]
    partly[:200] = NAN
    found = verdicts(logits, spoilt, partly)
    assert {row.verdict for row in found.values() if row.kind == "accuracy"} == {"KEPT"}
    assert found["colour: int8 ↔ fp32 top-1"].data["images"] == 400


def test_columns_of_several_heads_have_the_heads_names():
    assert column_names((COLOUR, Head("age", "regression", ("age",)))) == ("colour: red", "colour: blue", "age")


def test_a_whole_measurement_of_three_tasks_is_judged_head_by_head(task_world, tmp_path):
    recipe = VerifyRecipe(test_images=30)
    measurement = measure(task_world.models, task_world.dataset, task_world.profile, recipe, folder=tmp_path, progress=Silent())
    targets = measured_targets(task_world.dataset, recipe)
    assert targets.shape == (30, 4)
    heads = task_world.fp32.heads
    choice = choose("int8", measurement, {"fp32": 2, "int8": 1})
    limits = Limits(**{**vars(LIMITS), "map_drop_points": 10.0, "top1_drop_points": 10.0})
    rows = judge(
        measurement,
        targets,
        heads=heads,
        choice=choice,
        limits=limits,
        parity=task_world.fp32.parity,
        sizes={"fp32": 2, "int8": 1},
    )
    found = {row.name: row for row in rows if row.kind in ("numeric", "decision", "accuracy")}
    assert {row.verdict for row in found.values()} == {"KEPT"}
    assert found["torch ↔ ONNX fp32 logits"].figure == "1.0e-06 of the scale of its head"
    assert list(found["int8 ↔ fp32 logits"].data["heads"]) == ["colour", "tags", "level"]
    figures = figures_of_measurement(measurement, targets, heads)["int8"].heads
    assert [figures["colour"].top1_percent, figures["tags"].map_percent] == pytest.approx([100.0, 100.0])
    # The noise of the truth has a standard deviation of 2.
    assert figures["level"].rmse == pytest.approx(2.0, abs=0.7)


def test_a_head_that_gives_the_same_answer_for_every_image_is_broken(task_world, tmp_path):
    recipe = VerifyRecipe(test_images=12)
    measurement = measure(
        {"fp32": task_world.fp32}, task_world.dataset, task_world.profile, recipe, folder=tmp_path, progress=Silent()
    )
    logits = measurement.logits("fp32")
    logits[:, 6] = 1000.0
    np.save(tmp_path / "logits-fp32.npy", logits)
    row = sane_outputs(measurement, "fp32", task_world.fp32.heads)
    assert (row.verdict, row.reason) == ("BROKEN", "fp32 gives the same answer for every image: level")
