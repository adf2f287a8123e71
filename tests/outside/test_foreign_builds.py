"""Other people's ONNX files, taken down the whole line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetune.cli.main import main
from edgetune.device.session import open_session
from edgetune.files import sha256_file
from edgetune.numeric import PLAIN_SESSION

from .models import MACS, MEAN, QUICK, SIDE, STD, brightness


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network as its user would export it: float NCHW in, batch norms as they stand, for one image."""
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", num_classes=3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.1)
    path: Path = tmp_path_factory.mktemp("exported") / "timms.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            opset_version=13,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    assert "BatchNormalization" in {node.op_type for node in onnx.load(path).graph.node}
    return path


def test_what_torch_exports_today_is_taken_as_it_is(brought: Any, tmp_path: Path) -> None:
    """Its new exporter, with everything as it comes: a newer opset, a fixed batch in Reshapes, weights in a second file."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    network = nn.Sequential(features, nn.Flatten(), nn.Linear(32, 3), nn.Softmax(dim=1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, SIDE, SIDE),), tmp_path / "todays.onnx", dynamo=True, verbose=False)
    run = brought(tmp_path / "todays.onnx", pixels="imagenet")
    assert run.fp32.parity is not None
    assert run.fp32.parity.max_abs < 1e-5
    assert run.file.apart == bool(list(tmp_path.glob("*.data")))
    images = np.array(run.dataset.images("test")[:5])
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    logits = open_session(run.fp32.path, PLAIN_SESSION).run(["logits"], {"image": images})[0]
    with torch.inference_mode():
        assert np.abs(network[:-1](pixels).numpy() - logits).max() < 1e-5


def test_a_network_of_others_goes_down_the_whole_line(
    exported: Path, levels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shown = ["--data", str(levels), "--target", "x86-vnni", "--output", str(run), *QUICK]
    assert main(["quantize", str(exported), "--pixels", "imagenet", *shown]) in (0, 10)
    talk = capsys.readouterr()
    assert "entry from bytes: " in talk.out
    assert "pixels imagenet" in talk.out
    assert f"bundle {run / 'bundle'}" in talk.out
    assert "the scores are taken for the folders in order: bright, dark, mid" in talk.err
    report = json.loads((run / "report.json").read_text())
    assert report["sections"]["import"]["macs"] == MACS
    assert report["title"].startswith(f"{exported.stem} on levels for ")
    assert report["sections"]["model"]["sha256"] == sha256_file(exported)
    assert "train" not in report["sections"]
    rows = {row["name"]: row["verdict"] for row in report["verdicts"]}
    assert rows["given file ↔ ONNX fp32 logits"] == "KEPT"
    assert "## Model" in (run / "report.md").read_text()
    manifest = json.loads((run / "bundle" / "manifest.json").read_text())
    assert manifest["provenance"]["model_sha256"] == sha256_file(exported)
    assert "weights" not in manifest["provenance"]
    assert main(["check", str(run / "bundle"), "--data", str(levels), "--quick"]) in (0, 10)
    assert "golden logits" in capsys.readouterr().out


def test_a_named_device_times_what_the_quantizer_chooses_between(
    exported: Path, levels: Path, device_python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, run = tmp_path / "here.toml", tmp_path / "run"
    assert main(["profile", "new", "--device", "local", "--output", str(profile)]) == 0
    device = f"python:{device_python}"
    given = ["quantize", str(exported), "--pixels", "imagenet", "--data", str(levels), "--target", str(profile)]
    patient = ["--effort", "default", "--set", "quantize.near_enough=0", "--set", "quantize.reconstruction_steps=1"]
    assert main([*given, "--device", device, *patient, "--output", str(run), *QUICK[2:]]) in (0, 10)
    assert "measuring m0, m1, m2, m3, m4 on " in capsys.readouterr().err
    rungs = json.loads((run / "report.json").read_text())["sections"]["quantize"]["rungs"]
    stem = next(rung for rung in rungs if rung["rung"] == "float stem")
    assert "4 layers" in stem["note"]
    assert all(rung["latency_p50_ms"] > 0 < rung["fp32_latency_p50_ms"] for rung in rungs)


def test_a_run_of_a_file_replays_itself_and_trains_nothing(
    levels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = brightness(tmp_path / "theirs.onnx", last="Softmax"), tmp_path / "run"
    first = ["quantize", str(path), "--pixels", "half", "--data", str(levels), "--output", str(run), *QUICK]
    assert main(first) in (0, 10)
    talk = capsys.readouterr()
    assert "the final Softmax is left out" in talk.err
    assert "fp32: top-1 100.00 %" in talk.out
    before = (run / "bundle" / "manifest.json").read_bytes()
    for command in (["quantize", str(run), "--json"], ["build", str(run)], first):
        assert main(command) in (0, 10)
        said = capsys.readouterr().err.splitlines()
        kept = [line.split(":")[0] for line in said if line.endswith(": unchanged")]
        assert kept == ["data", "import", "quantize", "measure", "report"]
    assert (run / "bundle" / "manifest.json").read_bytes() == before
    assert main(["train", str(run)]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err
    assert main([*first, "--backbone", "resnet18", "--set", "train.epochs=3"]) == 2
    refused = capsys.readouterr().err
    assert "--backbone: has no meaning for a model that is trained already" in refused
    assert "--set train.epochs=3" in refused


def test_a_bundle_of_more_classes_is_checked_with_the_folders_there_are(
    levels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, run = ("mid", "lynx", "bright", "dark"), tmp_path / "run"
    path, labels = brightness(tmp_path / "theirs.onnx", classes=names), tmp_path / "labels.txt"
    labels.write_text("\n".join(names))
    options = ["--pixels", "half", "--labels", str(labels), "--data", str(levels), "--output", str(run), *QUICK]
    assert main(["quantize", str(path), *options]) in (0, 10)
    report = json.loads((run / "report.json").read_text())
    assert report["figures"]["fp32"]["top1_percent"] == 100
    assert "from labels.txt" in report["sections"]["model"]["names of the classes"]
    capsys.readouterr()
    assert main(["check", str(run), "--data", str(levels), "--quick"]) in (0, 10)
    talk = capsys.readouterr()
    assert "the images are of 3 of the bundle's 4 classes" in talk.err
    assert "against the manifest" in talk.out


def test_options_of_a_file_are_refused_for_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "--pixels", "half", "--output", str(tmp_path / "run")]) == 2
    assert "--pixels: has no meaning for a recipe" in capsys.readouterr().err
    path = brightness(tmp_path / "theirs.onnx")
    assert main(["quantize", str(path), "--output", str(tmp_path / "run")]) == 2
    assert "give --data DIR" in capsys.readouterr().err
    assert main(["quantize", str(path), "--data", "digits", "--mean", "a,b", "--output", str(tmp_path / "run")]) == 2
    assert "expected numbers such as 0.485,0.456,0.406" in capsys.readouterr().err
