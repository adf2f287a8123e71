"""A bundle of several tasks in use: what its heads decide, predict, golden images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from edgetune.device.bundle import heads_of, read_bundle
from edgetune.device.check import check
from edgetune.device.decisions import changed, decisions, is_classifier, sigmoid
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.heads import Head, column_names, default_heads, heads_to_json
from edgetune.device.predict import in_words, predict
from edgetune.device.runner import main

HEADS = (
    Head("colour", "single-label", ("red", "blue")),
    Head("tags", "multi-label", ("dog", "cat", "Ähre"), (0.5, 0.9, 0.1)),
    Head("age", "regression", ("age",)),
    Head("pose", "regression", ("yaw", "pitch")),
)
BIAS = np.array([2, 0, 3, 2, -2, 31.25, -4, 0.5], np.float32)
"""What the network answers to every image: its weights are zero."""


@pytest.fixture
def task_bundle(bundle: Path, seal: Callable[[Path, dict[str, Any]], None], classifier: Any) -> Path:
    model = classifier(classes=8, head=np.zeros((8, 4), np.float32))
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(BIAS, "bias"))
    onnx.save(model, bundle / "model.onnx")
    np.save(bundle / "golden/logits.npy", np.tile(BIAS, (3, 1)))
    table = json.loads((bundle / "golden/golden.json").read_text())
    table |= {"heads": heads_to_json(HEADS), "scale": [1, 1, 1, 1, 1, 10, 1, 0.5]}
    (bundle / "golden/golden.json").write_text(json.dumps(table))
    manifest = json.loads((bundle / "manifest.json").read_text())
    seal(bundle, {**manifest, "classes": list(column_names(HEADS)), "heads": heads_to_json(HEADS)})
    return bundle


def with_golden(bundle: Path, seal: Callable[[Path, dict[str, Any]], None], change: Callable[[np.ndarray], None]) -> Path:
    logits = np.load(bundle / "golden/logits.npy")
    change(logits)
    np.save(bundle / "golden/logits.npy", logits)
    seal(bundle, json.loads((bundle / "manifest.json").read_text()))
    return bundle


def test_each_kind_of_head_decides_in_its_own_way():
    logits = np.array([[1, 3], [2, 2]], np.float32)
    assert decisions(logits, Head("a", "single-label", ("x", "y"))).tolist() == [[1], [0]]
    # sigmoid(1) = 0.731, sigmoid(2) = 0.881, sigmoid(3) = 0.953
    assert decisions(logits, Head("a", "multi-label", ("x", "y"), (0.8, 0.9))).tolist() == [[0, 1], [1, 0]]
    assert decisions(-logits, Head("a", "multi-label", ("x", "y"))).tolist() == [[0, 0], [0, 0]]
    assert decisions(logits, Head("a", "regression", ("x", "y"))).shape == (2, 0)


def test_the_sigmoid_does_not_overflow():
    assert sigmoid(np.array([-1e30, -1.0, 0.0, 1e30], np.float32)) == pytest.approx([0, 1 / (1 + np.e), 0.5, 1])


def test_a_threshold_is_where_a_label_begins_to_be_decided():
    assert decisions(np.zeros((1, 1), np.float32), Head("a", "multi-label", ("x",), (0.5,))).tolist() == [[1]]


def test_a_change_of_any_head_counts_and_a_value_never():
    base = np.tile(BIAS, (4, 1))
    other = base.copy()
    other[1, 0], other[2, 3], other[3, 5:] = -9, 3, 99
    assert changed(base, other, HEADS).tolist() == [False, True, True, False]


def test_only_one_head_with_one_label_is_a_classifier():
    assert is_classifier(default_heads(("a", "b")))
    assert not any(map(is_classifier, (HEADS, HEADS[1:2], HEADS[2:3], HEADS[:1] * 2)))


def test_predict_answers_every_head_by_its_name(task_bundle: Path):
    (row,) = predict(task_bundle, [task_bundle / "golden/00.png"], top=1)
    assert set(row) == {"image", "heads"}
    heads = row["heads"]
    assert heads["colour"]["label"] == "red"
    assert heads["colour"]["probability"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert len(heads["colour"]["top"]) == 1
    assert heads["tags"]["labels"] == ["dog", "Ähre"]
    assert heads["tags"]["probabilities"] == {
        name: pytest.approx(1 / (1 + np.exp(-x))) for name, x in zip(("dog", "cat", "Ähre"), (3, 2, -2), strict=True)
    }
    assert heads["age"] == {"values": {"age": 31.25}}
    assert heads["pose"] == {"values": {"yaw": -4.0, "pitch": 0.5}}
    assert in_words({**row, "image": "a.png"}) == (
        "a.png: colour: red 88.1 %; tags: dog 95.3 %, Ähre 11.9 %; age 31.25; pose: yaw -4, pitch 0.5"
    )


def test_a_single_head_is_not_named_and_no_label_is_said(task_bundle: Path):
    labels = {"labels": [], "probabilities": {"dog": 0.1}}
    assert in_words({"image": "a.png", "heads": {"tags": labels}}) == "a.png: no label"
    assert in_words({"image": "a.png", "heads": {"age": {"values": {"years": 3.0}}}}) == "a.png: years 3"


def test_the_zipapp_predicts_tasks_in_words_and_as_json(task_bundle: Path, tmp_path: Path, runner: Path):
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    command = [sys.executable, str(runner), "predict", str(task_bundle), "x.png"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert said == "x.png: colour: red 88.1 %, blue 11.9 %; tags: dog 95.3 %, Ähre 11.9 %; age 31.25; pose: yaw -4, pitch 0.5\n"
    said = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    (row,) = predict(task_bundle, [tmp_path / "x.png"])
    assert json.loads(said) == [{**row, "image": "x.png"}]


def test_golden_values_are_measured_in_their_scale(task_bundle: Path, seal: Any):
    measurement, broken = check(with_golden(task_bundle, seal, lambda logits: np.add.at(logits, (0, 5), 4.0)), True, str)
    # Four years beside a scale of ten; the profile's 0.5 holds.
    assert measurement["golden"]["logits"]["max_abs"] == pytest.approx(0.4)
    assert (measurement["golden"]["logits"]["top1_changed"], broken) == (0, [])


def test_a_golden_value_beyond_its_scale_is_broken(task_bundle: Path, seal: Any):
    _, broken = check(with_golden(task_bundle, seal, lambda logits: np.add.at(logits, (0, 7), 0.4)), True, str)
    assert broken == ["golden logits: off by up to 0.8, the profile tolerates 0.5"]


def test_another_set_of_labels_is_another_decision(task_bundle: Path, seal: Any, capsys: pytest.CaptureFixture[str]):
    # Cat's threshold of 0.9 is at 2.197: within the tolerance of 0.5, but decided otherwise.
    bundle = with_golden(task_bundle, seal, lambda logits: np.add.at(logits, (1, 3), 0.3))
    assert main(["check", str(bundle), "--quick"]) == ExitCode.BROKEN
    assert "BROKEN     golden images: 1 of 3 are decided otherwise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": [1]}, "are not of 8 logits"),
        ({"scale": [0] * 8}, "scale: expected a list of numbers above 0"),
        ({"heads": heads_to_json(HEADS[:2])}, "are not of 8 logits"),
        ({"heads": [{"name": "x"}]}, "expected name, kind, columns and thresholds"),
    ],
)
def test_a_golden_table_that_does_not_fit_is_refused(task_bundle: Path, seal: Any, change: dict[str, Any], words: str):
    table = json.loads((task_bundle / "golden/golden.json").read_text())
    (task_bundle / "golden/golden.json").write_text(json.dumps({**table, **change}))
    seal(task_bundle, json.loads((task_bundle / "manifest.json").read_text()))
    with pytest.raises(RunnerError, match=words) as caught:
        check(task_bundle, True, str)
    assert caught.value.code is ExitCode.ARTEFACT


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        (heads_to_json(HEADS[:3]), "their columns are not what the classes name"),
        ([{**heads_to_json(HEADS)[0], "kind": "guess"}], "kind: got 'guess'"),
        ("none", "expected a list of tables"),
        (None, "expected a list of tables"),
    ],
)
def test_heads_that_are_not_the_manifests_are_refused(task_bundle: Path, seal: Any, heads: Any, words: str):
    manifest = json.loads((task_bundle / "manifest.json").read_text())
    seal(task_bundle, {**manifest, "heads": heads})
    with pytest.raises(RunnerError, match=words) as caught:
        read_bundle(task_bundle)
    assert caught.value.code is ExitCode.ARTEFACT


def test_two_heads_cannot_have_one_name():
    heads = (Head("a", "regression", ("x",)), Head("a", "regression", ("y",)))
    with pytest.raises(ValueError, match="the same name"):
        heads_of({"classes": list(column_names(heads)), "heads": heads_to_json(heads)})


def test_a_bundle_from_before_there_were_tasks_is_a_classifier(bundle: Path):
    shipped = read_bundle(bundle)
    assert "heads" not in shipped.manifest
    assert shipped.heads == default_heads(shipped.classes)
