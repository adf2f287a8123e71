"""The straight line for real: a small folder of images, a small network, every stage, and what stays when it is cut off."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest

from edgetune.cli.main import main

from .line import STAGES, arguments, child, unchanged, wait_for_a_saved_state


def test_a_build_leaves_a_bundle_that_its_own_runner_verifies(built):
    runner = [sys.executable, str(built / "bundle" / "runner.pyz")]
    assert subprocess.run([*runner, "verify", str(built / "bundle")], check=False, capture_output=True).returncode == 0
    report = json.loads((built / "report.json").read_text())
    assert set(report["figures"]) == {"fp32", "int8"}
    assert report["sections"]["quantize"]["float_nodes"] == []
    assert report["sections"]["export"]["parity"]["max_abs"] < 1e-3
    assert (built / "report.md").read_text().startswith("# test\\_efficientnet on discs for")


def test_the_model_file_alone_says_what_it_needs(built):
    import onnx

    from edgetune.onnxfile import read_metadata

    model = onnx.load(built / "bundle" / "model.onnx")
    classes, preprocessing, provenance, _ = read_metadata(model)
    assert classes == ("blue", "green", "red")
    assert preprocessing is not None
    assert (preprocessing.height, preprocessing.width) == (32, 32)
    assert len(provenance["data_sha256"]) == 64
    manifest = json.loads((built / "bundle" / "manifest.json").read_text())
    assert manifest["provenance"]["data_sha256"] == provenance["data_sha256"]


def test_nothing_in_a_bundle_tells_where_it_was_built(built, photos):
    for path in (built / "bundle").rglob("*"):
        if path.is_file() and path.suffix != ".pyz":
            content = path.read_bytes()
            assert str(photos.parent).encode() not in content, path
            assert str(built.parent).encode() not in content, path


def test_the_second_build_does_nothing_and_gives_the_same_bytes(copy, photos, capsys):
    before = (copy / "bundle" / "manifest.json").read_bytes()
    main(["build", "--data", str(photos), "--output", str(copy), *arguments()])
    assert unchanged(capsys) == list(STAGES)
    assert (copy / "bundle" / "manifest.json").read_bytes() == before


def test_a_run_folder_replays_itself(copy, capsys):
    before = (copy / "bundle" / "manifest.json").read_bytes()
    main(["build", str(copy)])
    assert unchanged(capsys) == list(STAGES)
    assert (copy / "bundle" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ("verify.top1_drop_points=2.5", STAGES[:5]),
        ("verify.test_images=12", STAGES[:4]),
        ("quantize.ranges=minmax", STAGES[:3]),
        ("export.parity_images=9", STAGES[:2]),
    ],
)
def test_a_changed_key_runs_only_what_depends_on_it(copy, photos, capsys, setting, kept):
    main(["build", "--data", str(photos), "--output", str(copy), *arguments(setting)])
    # An export that comes out the same spares the quantizer, so more may be kept than must be.
    assert unchanged(capsys)[: len(kept)] == list(kept)
    stage = STAGES[len(kept)]
    assert len(list((copy / "stages" / stage).iterdir())) == 2


def test_a_fresh_build_elsewhere_gives_the_same_model(built, photos, tmp_path):
    moved = shutil.copytree(photos, tmp_path / "discs")
    output = tmp_path / "run"
    main(["quantize", "--data", str(moved), "--output", str(output), *arguments()])
    model = next((output / "stages" / "quantize").glob("*/model.onnx"))
    assert model.read_bytes() == (built / "bundle" / "model.onnx").read_bytes()


def test_a_build_killed_in_training_goes_on_to_the_same_model(built, photos, tmp_path):
    command = ["quantize", "--data", str(photos), "--output", str(tmp_path / "run"), *arguments()]
    process = child(command)
    wait_for_a_saved_state(process, tmp_path / "run")
    process.kill()
    process.communicate()
    assert not list(tmp_path.glob("run/stages/train/*/stage.json"))
    assert main(command) == 0
    model = next((tmp_path / "run" / "stages" / "quantize").glob("*/model.onnx"))
    assert model.read_bytes() == (built / "bundle" / "model.onnx").read_bytes()


def test_an_interrupt_in_training_saves_and_exits_130(photos, tmp_path):
    run = tmp_path / "run"
    process = child(
        ["train", "--data", str(photos), "--output", str(run), *arguments("train.epochs=4000", "train.patience=4000")]
    )
    wait_for_a_saved_state(process, run)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 130, talk
    assert b"again to resume" in talk
    assert b"Traceback" not in talk


def test_a_damaged_value_is_put_aside_and_made_again(copy, photos, capsys):
    path = next((copy / "stages" / "export").glob("*/model.onnx"))
    content = bytearray(path.read_bytes())
    whole = bytes(content)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    main(["export", "--data", str(photos), "--output", str(copy), *arguments()])
    talk = capsys.readouterr().err
    assert "model.onnx was changed" in talk
    assert "rebuilt" in talk
    assert path.read_bytes() == whole


def test_two_builds_in_one_folder_exclude_each_other(copy, photos, capsys):
    from edgetune.stagecache import locked

    with locked(copy):
        process = child(["build", "--data", str(photos), "--output", str(copy), *arguments()])
        _, talk = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"another edgetune works in" in talk


def test_a_killed_process_leaves_no_lock(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from edgetune.stagecache import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    from edgetune.stagecache import locked

    with locked(tmp_path):
        assert (tmp_path / "lock").exists()
