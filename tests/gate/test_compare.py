"""`edgetune compare`, from the command line to the exit code, with real bundles on this machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgetune.artefacts.comparison import ChangedDecision
from edgetune.cli.main import main
from edgetune.gate.changed import draw, forget
from edgetune.gate.measuring import Device
from edgetune.gate.sides import read_side
from edgetune.gate.tolerances import Tolerances
from edgetune.progress import Silent
from edgetune.verify.targets.local import LocalTarget

UNTIMED = ("--no-timing",)


def verdicts(content: dict) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in content["verdicts"]}


def test_a_copy_of_the_baseline_is_kept(bundle, photos, capsys):
    first, second = bundle("first"), bundle("second")
    assert main(["compare", str(first), str(second), "--data", str(photos), "--json", *UNTIMED]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["overall"] == "KEPT"
    assert verdicts(content) == {
        "candidate's logits": "KEPT",
        "decisions": "SKIPPED",
        "top-1": "KEPT",
        "top-1 of each class": "KEPT",
        "calibration (ECE)": "KEPT",
        "latency, batch 1": "SKIPPED",
        "cold start": "SKIPPED",
        "peak memory": "SKIPPED",
        "size of the file": "KEPT",
    }
    assert (content["changed"], content["changed_total"], content["data"]["images"]) == ([], 0, 320)
    accuracy = next(row for row in content["verdicts"] if row["name"] == "top-1")
    assert accuracy["data"]["samples"] == "320 images"
    assert accuracy["data"]["smallest"] == "0.93 points"
    assert "baseline and candidate are the same file" in content["warnings"]


def test_a_candidate_that_lost_a_class_is_broken_and_its_images_are_shown(bundle, photos, tmp_path, capsys, monkeypatch):
    first, second, output = bundle("first"), bundle("second", blind=3), tmp_path / "report"
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    asked = ["--data", str(photos), "--output", str(output), "--junit", str(tmp_path / "j.xml"), "--github"]
    assert main(["compare", str(first), str(second), *asked, *UNTIMED]) == 10
    out = capsys.readouterr().out
    content = json.loads((output / "comparison.json").read_text())
    found = verdicts(content)
    assert (found["top-1"], found["top-1 of each class"], content["overall"]) == ("BROKEN", "BROKEN", "BROKEN")
    classes = next(row for row in content["verdicts"] if row["name"] == "top-1 of each class")
    assert classes["data"]["broken"] == ["red"]
    assert "red (100.0 points)" in classes["reason"]
    # Worst first: the surest wrong decision, all of them red and lost.
    changed = content["changed"]
    assert content["changed_total"] == 80
    assert {(one["label"], one["baseline"], one["effect"]) for one in changed} == {("red", "red", "lost")}
    margins = [one["margin"] for one in changed]
    assert margins == sorted(margins, reverse=True)
    assert changed[0]["image"].startswith("test/red/")
    with Image.open(output / changed[0]["picture"]) as shown, Image.open(photos / changed[0]["image"]) as original:
        assert np.array_equal(np.asarray(shown)[::12, ::12], np.asarray(original))
    page = (output / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 80
    assert 'src="http' not in page
    assert f"![]({changed[0]['picture']})" in (output / "report.md").read_text()
    assert "::error title=edgetune%3A top-1 BROKEN::" in out
    assert "# ❌ edgetune compare: BROKEN" in summary.read_text()
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("3", "0")  # The calibration, too.
    assert "80 decisions changed; the worst:" in out
    assert "BROKEN: the candidate is worse than its baseline by more than a tolerance" in out


def test_uncertainty_fails_only_where_certainty_is_asked_for(bundle, photos, capsys):
    first, second = bundle("first"), bundle("second")
    # 320 images confirm one point, not a tenth of it.
    asked = ["compare", str(first), str(second), "--data", str(photos), "--set", "accuracy_points=0.1", *UNTIMED]
    assert main(asked) == 0
    assert "INCONCLUSIVE: nothing is shown to be worse" in capsys.readouterr().out
    assert main([*asked, "--strict"]) == 11


def test_classes_in_another_order_are_the_same_classes(bundle, photos, capsys):
    first, second = bundle("first"), bundle("second", order=(3, 0, 2, 1))
    assert main(["compare", str(first), str(second), "--data", str(photos), "--json", *UNTIMED]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["overall"], content["changed_total"]) == ("KEPT", 0)


def test_bare_files_take_over_what_they_do_not_say(bundle, model, photos, capsys):
    candidate = model("bare").path
    assert main(["compare", str(bundle("first")), str(candidate), "--data", str(photos), "--json", *UNTIMED]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["candidate"]["kind"], content["overall"]) == ("model", "KEPT")
    assert main(["compare", str(candidate), str(candidate), *UNTIMED]) == 2
    assert "says what its outputs mean" in capsys.readouterr().err


def test_a_file_of_another_contract_is_refused_with_what_to_do(bundle, tmp_path, capsys):
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "theirs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 192])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "theirs.onnx")
    assert main(["compare", str(bundle("first")), str(tmp_path / "theirs.onnx")]) == 2
    said = capsys.readouterr().err
    assert "input: is another one; got x: float [1, 3, 8, 8]; expected image: uint8 [N, H, W, K]" in said
    assert "edgetune quantize FILE.onnx --data DIR" in said


def test_without_images_the_models_are_not_judged_and_that_is_said(bundle, capsys):
    assert main(["compare", str(bundle("first")), str(bundle("second")), *UNTIMED]) == 0
    assert "SKIPPED      top-1                no labelled images were given; use --data DIR" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--set", "latency_percents=3"), 2, "latency_percent"),
        (("--set", "accuracy_points=nan"), 2, "accuracy_points"),
        (("--all-images",), 2, "--all-images is for images that no model was trained on"),
        (("--device", "no-such-scheme://x"), 2, "no-such-scheme"),
    ],
)
def test_what_cannot_be_honoured_is_refused(bundle, capsys, arguments, code, said):
    assert main(["compare", str(bundle("first")), str(bundle("second")), *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_bundle_that_was_changed_is_not_compared(bundle, capsys):
    second = bundle("second")
    (second / "model.onnx").write_bytes(b"x")
    assert main(["compare", str(bundle("first")), str(second)]) == 4
    assert "model.onnx" in capsys.readouterr().err


def test_tolerances_come_from_a_file_and_all_its_faults_are_named(bundle, photos, tmp_path: Path, capsys):
    file = tmp_path / "gate.toml"
    file.write_text("ece_points = -1\nlatency = 3\n")
    assert main(["compare", str(bundle("first")), str(bundle("second")), "--tolerances", str(file)]) == 2
    said = capsys.readouterr().err
    assert "ece_points" in said
    assert "latency" in said


def test_the_help_says_the_tolerances(capsys):
    assert main(["compare", "--help"]) == 0
    said = dict(re.findall(r"([a-z_]+_(?:points|percent)) ([0-9]+)", capsys.readouterr().out))
    assert {key: float(value) for key, value in said.items()} == Tolerances().to_json()


def test_a_second_report_in_the_same_folder_forgets_the_pictures_of_the_first(tmp_path):
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((3, 8, 8, 3), np.uint8))
    common = {"image": "a.png", "label": "", "baseline": "a", "candidate": "b", "effect": "other"}
    for index in (1, 2):
        forget(tmp_path)
        (one,) = draw([ChangedDecision(index=index, **common)], images, tmp_path)
        assert [path.name for path in (tmp_path / "changed").iterdir()] == [Path(one.picture).name]


def test_how_many_queries_stand_in_a_block_is_known_without_images(bundle, tmp_path):
    device = Device(target=LocalTarget(), folder=tmp_path / "device", progress=Silent())
    device.meet()
    assert 0 < device.query_ms(read_side(bundle("first"), "baseline")) < 1000


@pytest.mark.slow
def test_times_are_measured_in_pairs_of_processes(bundle, photos, capsys):
    """Slow: twelve pairs of fresh processes."""
    code = main(["compare", str(bundle("first")), str(bundle("second")), "--data", str(photos), "--quick", "--json"])
    content = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in content["verdicts"]}
    assert code in (0, 10)  # Six pairs on a busy machine may say anything but nothing.
    assert rows["latency, batch 1"]["data"]["samples"] == "6 pairs of processes"
    assert rows["latency, batch 1"]["data"]["control"]["pairs"] == 6
    assert rows["peak memory"]["verdict"] == "KEPT"
    assert rows["cold start"]["verdict"] != "SKIPPED"
