"""Backbones ranked for real: a small folder of images, tiny networks with random weights, both stages, the table."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from edgetune.cli.main import main
from edgetune.device.environment import processor_facts
from edgetune.errors import Interrupted, UsageError, WeightsError
from edgetune.pipeline import Run
from edgetune.profile import load_profile, mismatches
from edgetune.progress import Silent
from edgetune.ranking import rank
from edgetune.recipe import Recipe
from edgetune.stopping import Stop

TARGET = "raspberry-pi-4"
COLOURS = {"blue": (40, 60, 220), "red": (220, 50, 40)}


@pytest.fixture(scope="session")
def spots(tmp_path_factory) -> Path:
    """Two classes of 40 noisy coloured discs."""
    folder = tmp_path_factory.mktemp("ranked") / "spots"
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(40):
            picture = Image.fromarray(generator.integers(0, 255, (40, 40, 3), dtype=np.uint8))
            x, y = generator.integers(4, 12, 2)
            ImageDraw.Draw(picture).ellipse((x, y, x + 20, y + 20), fill=colour)
            picture.save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def arguments(spots, tmp_path_factory) -> list[str]:
    """A ranking of one network that can be cut after its third stage and one that cannot."""
    output = tmp_path_factory.mktemp("runs") / "ranking"
    settings = ("model.weights=none", "model.stages=3", "train.threads=1")
    return [
        *("backbones", "test_resnet,test_vit", "--data", str(spots), "--target", TARGET, "--image-size", "32"),
        *("--output", str(output)),
        *(part for setting in settings for part in ("--set", setting)),
    ]


@pytest.fixture(scope="session")
def ranked(arguments) -> Path:
    """The run folder of the ranking."""
    assert main(arguments) == 0
    output = Path(arguments[arguments.index("--output") + 1])
    # Other tests rank in the same folder, for other targets.
    shutil.copy(output / "ranking.json", output / "first.json")
    return output


def opened(spots: Path, folder: Path, *settings: str, stop: Stop | None = None) -> Run:
    recipe = Recipe.load(None, ("data.image_size=32", "train.threads=1", *settings), {"data.source": str(spots)})
    return Run.open(recipe, folder, Silent(), stop)


def test_a_ranking_says_what_each_reaches_and_costs(ranked):
    ranking = json.loads((ranked / "first.json").read_text())
    assert (ranked / "ranking.png").read_bytes().startswith(b"\x89PNG")
    resnet, vit = ranking["candidates"]
    assert (resnet["backbone"], vit["backbone"]) == ("test_resnet", "test_vit")
    assert resnet["probe"]["score"] > 70.0  # Colours are seen by random features, too.
    assert resnet["probe"]["standard_error"] > 0.0
    assert resnet["probe"]["images"] == 8
    assert resnet["cost"]["parameters"] > 1000
    assert resnet["cost"]["macs"] > 1000
    for timing in resnet["cost"]["timings"].values():
        assert 0.0 < timing["p50_ms"] <= timing["p90_ms"]
    assert set(resnet["cost"]["timings"]) == {"fp32", "int8"}
    assert ranking["front"] == ["test_resnet"] == [ranking["recommended"]]


def test_what_fails_is_a_row_and_not_the_end(ranked):
    vit = json.loads((ranked / "first.json").read_text())["candidates"][1]
    assert vit["probe"] is None
    assert vit["cost"] is None
    # Said once, although it stopped the score and the latency.
    assert vit["faults"] == [
        "the backbone cannot be built as the recipe asks; model.stages: the stages of a VisionTransformer cannot be cut off "
        "(leave model.stages = all)"
    ]


def test_the_second_call_computes_nothing(ranked, arguments, capsys):
    before = {path: path.stat().st_mtime_ns for path in ranked.glob("stages/*/*/stage.json")}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in ranked.glob("stages/*/*/stage.json")} == before
    assert {path.parent.parent.name for path in before} == {"data", "features", "probe", "cost"}
    assert (ranked / "ranking.json").read_bytes() == (ranked / "first.json").read_bytes()
    captured = capsys.readouterr()
    assert re.search(r"^1/2 test_resnet: [\d.]+ ± [\d.]+, int8 [\d.]+ ms, fp32 [\d.]+ ms$", captured.err, re.MULTILINE)
    assert re.search(r"^→  test_resnet +[\d.]+ ± [\d.]+ +(int8|fp32) ", captured.out, re.MULTILINE)
    assert re.search(r"^ +test_vit +- +- ", captured.out, re.MULTILINE)
    assert "the scores are of random weights" in captured.out
    assert "\ntest_vit: the backbone cannot be built" in captured.out
    assert "\nrecommended: test_resnet (" in captured.out


@pytest.mark.usefixtures("ranked")
def test_a_latency_that_is_not_the_targets_is_called_so(arguments, capsys):
    assert main([*arguments, "--json"]) == 0
    ranking = json.loads(capsys.readouterr().out)
    assert bool(ranking["stand_in_reason"]) == bool(mismatches(load_profile(TARGET), processor_facts()))
    assert main(arguments) == 0
    assert ("which stands in for the target: architecture" in capsys.readouterr().out) == bool(ranking["stand_in_reason"])


@pytest.mark.usefixtures("ranked")
def test_without_weights_a_backbone_is_timed_but_not_scored(arguments, capsys, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert main([*arguments, "--set", "model.weights=auto", "--latency-budget", "9", "--json"]) == 0
    ranking = json.loads(capsys.readouterr().out)
    resnet = ranking["candidates"][0]
    assert resnet["probe"] is None
    assert resnet["cost"]["timings"]["int8"]["p50_ms"] > 0  # The same measurement: weights have no part in it.
    assert resnet["get"] == "hf download timm/test_resnet.r160_in1k model.safetensors"
    assert (ranking["recommended"], ranking["reason"]) == (None, "no candidate is both scored and timed")


def test_an_interrupted_ranking_is_no_failed_candidate(spots, tmp_path):
    stop = Stop()
    stop.asked = True
    with pytest.raises(Interrupted):
        rank(opened(spots, tmp_path, "model.weights=none", stop=stop), ["test_resnet"])


def test_where_every_candidate_fails_the_command_fails(spots, tmp_path):
    with pytest.raises(WeightsError, match="no candidate could be ranked") as caught:
        rank(opened(spots, tmp_path, "model.weights=none"), ["no_such_network", "nor_this"])
    assert [fault.where for fault in caught.value.faults] == ["no_such_network", "nor_this"]


def test_one_file_does_not_fit_several_backbones(spots, tmp_path):
    with pytest.raises(UsageError, match="one file does not fit several backbones"):
        rank(opened(spots, tmp_path, "model.weights=some.safetensors"), ["test_resnet"])


def test_options_of_a_ranking_need_images(capsys):
    assert main(["backbones", "test_resnet", "--target", "host", "--image-size", "32"]) == 2
    assert "--target, --image-size: only a ranking needs that; give --data" in capsys.readouterr().err
