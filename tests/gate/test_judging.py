"""Other tasks than a single label, and models that cannot be compared as they stand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgetune.artefacts import Preprocessing
from edgetune.cli.main import main
from edgetune.device.decisions import decisions
from edgetune.device.heads import Head, default_heads
from edgetune.gate.changed import changed_decisions
from edgetune.gate.judging import model_rows, on_one_scale
from edgetune.gate.tolerances import Tolerances
from edgetune.onnxfile import write_metadata

COLOUR = Head("colour", "single-label", ("red", "green", "blue"))
TAGS = Head("tags", "multi-label", ("warm", "cold"), (0.5, 0.5))
LEVEL = Head("level", "regression", ("level",))
HEADS = (COLOUR, TAGS, LEVEL)
IMAGES = 400


@pytest.fixture
def answers():
    """Logits `[N, 6]` that are mostly right, and what is right `[N, 4]`, a tenth of it not known."""
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 3, IMAGES)
    tags = rng.integers(0, 2, (IMAGES, 2))
    level = rng.normal(50, 10, IMAGES)
    logits = np.concatenate(
        [
            4 * np.eye(3)[colours] + rng.normal(0, 1, (IMAGES, 3)),
            6.0 * tags - 3 + rng.normal(0, 1, (IMAGES, 2)),
            level[:, None] + rng.normal(0, 2, (IMAGES, 1)),
        ],
        axis=1,
    ).astype(np.float32)
    targets = np.concatenate([colours[:, None], tags, level[:, None]], axis=1).astype(np.float32)
    targets[rng.random(targets.shape) < 0.1] = np.nan
    return logits, targets


def verdicts(first, second, targets, **allowed):
    return {row.name: row for row in model_rows(first, second, targets, HEADS, Tolerances(**allowed))}


def test_each_kind_of_task_has_its_rows(answers):
    logits, targets = answers
    rows = verdicts(logits, logits, targets)
    assert {name: row.verdict for name, row in rows.items()} == {
        "colour: decisions": "SKIPPED",
        "colour: top-1": "KEPT",
        "colour: top-1 of each class": "KEPT",
        "colour: calibration (ECE)": "KEPT",
        "tags: decisions": "SKIPPED",
        "tags: mAP": "KEPT",
        "level: values": "SKIPPED",
        "level: RMSE": "KEPT",
    }
    known = int(np.isfinite(targets[:, 0]).sum())
    assert rows["colour: top-1"].data["samples"] == f"{known} images"
    assert rows["tags: mAP"].data["smallest"].endswith(" points")
    assert rows["level: RMSE"].data["smallest"].endswith(" %")
    assert "fp32" not in " ".join(f"{row.name} {row.reason} {row.figure}" for row in rows.values())


def test_what_is_worse_in_one_task_is_broken_there_alone(answers):
    logits, targets = answers
    worse = logits.copy()
    worse[:, 3] = -worse[:, 3]
    worse[:, 5] += 4
    rows = verdicts(logits, worse, targets, agreement_percent=99.0)
    broken = {name for name, row in rows.items() if row.verdict == "BROKEN"}
    assert broken == {"tags: decisions", "tags: mAP", "level: values", "level: RMSE"}
    assert rows["colour: decisions"].verdict == "KEPT"


def test_a_label_that_nothing_is_known_of_is_not_judged(answers):
    logits, targets = answers
    targets[:, 0] = np.nan
    rows = verdicts(logits, logits, targets)
    assert {rows[f"colour: {name}"].verdict for name in ("top-1", "top-1 of each class", "calibration (ECE)")} == {
        "INCONCLUSIVE"
    }


def test_each_model_decides_by_its_own_thresholds(answers):
    logits, _ = answers
    own = (COLOUR, replace(TAGS, thresholds=(0.9, 0.2)), LEVEL)
    moved = on_one_scale(logits, own, HEADS)
    expected = decisions(logits[:, 3:5], own[1])
    assert np.array_equal(decisions(moved[:, 3:5], TAGS), expected)
    assert not np.array_equal(decisions(logits[:, 3:5], TAGS), expected)
    assert np.array_equal(moved[:, [0, 1, 2, 5]], logits[:, [0, 1, 2, 5]])


def test_changed_decisions_come_worst_first_and_say_what_they_did():
    first = np.array([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [2.0, 0, 0]], np.float32)
    second = np.array([[0, 0.5, 0], [0, 0, 9.0], [9.0, 0, 0], [2.0, 0, 0]], np.float32)
    targets = np.array([[0.0], [1.0], [0.0], [0.0]], np.float32)
    found = changed_decisions(first, second, targets, ["a", "b", "c\udcff", "d"], default_heads(COLOUR.columns))
    assert [(one.image, one.effect, one.label, one.baseline, one.candidate) for one in found] == [
        ("b", "lost", "green", "green", "blue"),
        ("a", "lost", "red", "red", "green"),
        ("c\ufffd", "gained", "red", "blue", "red"),
    ]


def test_labels_of_an_image_change_one_by_one():
    first, second = np.array([[3.0, -3.0]], np.float32), np.array([[-3.0, -3.0]], np.float32)
    (one,) = changed_decisions(first, second, np.array([[1.0, np.nan]], np.float32), ["a"], (TAGS,))
    assert (one.baseline, one.candidate, one.effect, one.label) == ("warm", "no warm", "lost", "warm")


def other_size(model, folder, side=16):
    """Return a bare file of the same network for images of another size."""
    network = onnx.load(model.path)
    for dim in network.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dim.dim_value = side
    write_metadata(network, model.heads, Preprocessing(height=side, width=side), {})
    path = folder / "other.onnx"
    onnx.save(network, path)
    return path


def test_models_of_different_sizes_see_the_same_images(bundle, model, photos, tmp_path, capsys):
    candidate = other_size(model("large"), tmp_path)
    # The metadata alone is more than a tenth of so small a file.
    asked = ["compare", str(bundle("first")), str(candidate), "--data", str(photos), "--no-timing", "--json"]
    asked += ["--set", "size_percent=1000"]
    assert main(asked) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["overall"] == "KEPT"
    assert "the two prepare images in different ways" in output.err


def test_a_candidate_without_numbers_is_broken(bundle, model, photos, tmp_path, capsys):
    network = onnx.load(model("nan").path)
    for weights in network.graph.initializer:
        if weights.name == "bias":
            weights.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias"))
    path = tmp_path / "nan.onnx"
    onnx.save(network, path)
    asked = ["compare", str(bundle("first")), str(path), "--data", str(photos), "--no-timing", "--json"]
    assert main(asked) == 10
    rows = {row["name"]: row["verdict"] for row in json.loads(capsys.readouterr().out)["verdicts"]}
    assert (rows["candidate's logits"], rows["top-1"], rows["calibration (ECE)"]) == ("BROKEN", "INCONCLUSIVE", "INCONCLUSIVE")


def test_other_classes_are_refused_by_name(bundle, model, tmp_path, capsys):
    network = onnx.load(model("foreign").path)
    heads = default_heads(("blue", "green", "grey", "violet"))
    write_metadata(network, heads, Preprocessing(height=8, width=8), {})
    onnx.save(network, tmp_path / "foreign.onnx")
    assert main(["compare", str(bundle("first")), str(tmp_path / "foreign.onnx")]) == 2
    assert "the candidate is without red; with the new violet" in capsys.readouterr().err
