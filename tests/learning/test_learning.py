"""The part of the line that learns: what is computed again after which change, the teacher, the ablation, the range test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgetune.cli.main import main
from edgetune.features import features_of
from edgetune.learning import checkpoint_of
from edgetune.recipe import Recipe

from .stages import stages


def test_features_are_looked_at_again_only_for_what_they_depend_on(opened, tmp_path, tiny_weights) -> None:
    first = opened(tmp_path / "run")
    checkpoint_of(first)
    for changes in (
        {"train__lr": 1e-4},
        {"train__probe_iterations": 7},
        {"model__hidden": (8,)},
        {"model__drop_rate": 0.5},
        {"train__strategy": "linear-probe"},
        {"train__label_smoothing": 0.0},
    ):
        run = opened(tmp_path / "run", **changes)
        checkpoint_of(run)
        assert "features: unchanged" in run.progress.lines, changes
    assert len(stages(first, "features")) == 1
    assert len(stages(first, "train")) == 7
    shutil.copy(tiny_weights, tmp_path / "same.safetensors")
    # It is the file's content that counts, not its name.
    features_of(
        opened(tmp_path / "run"), opened(tmp_path / "run", model__weights=str(tmp_path / "same.safetensors")).recipe.model
    )
    assert len(stages(first, "features")) == 1
    cut = opened(tmp_path / "run", model__stages=3)
    features = features_of(cut, cut.recipe.model)
    assert len(stages(first, "features")) == 2
    assert features.load("train").shape == (first.dataset.counts["train"], features.width)


def test_full_fine_tuning_needs_no_features(opened, tmp_path) -> None:
    run = opened(tmp_path / "run", train__strategy="full")
    checkpoint_of(run)
    assert not stages(run, "features")


def test_pictures_lie_where_people_look(opened, tmp_path) -> None:
    run = opened(tmp_path / "run", watch__pictures=True, watch__tensorboard=True)
    checkpoint_of(run)
    assert (run.folder / "pictures" / "train-curves.png").stat().st_size > 1000
    assert list((run.folder / "tensorboard").glob("train-*/events*"))
    # They are drawn beside the value, not made a part of what later stages depend on.
    (run.folder / "pictures" / "train-curves.png").unlink()
    checkpoint_of(opened(tmp_path / "run", watch__pictures=True))
    assert (run.folder / "pictures" / "train-curves.png").exists()


def command(name: str, folder: Path, settings: dict[str, Any], *more: str) -> list[str]:
    sets = [f"--set={key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in settings.items()]
    return [name, "--output", str(folder), *sets, *more]


def test_lr_find_suggests_and_draws(opened, settings, tmp_path, capsys) -> None:
    folder = opened(tmp_path / "run").folder
    plain = {**settings, "train.probe_iterations": 0, "train.strategy": "full"}
    assert main(command("lr-find", folder, plain, "--steps", "40")) == 0
    said = capsys.readouterr()
    assert said.out.startswith("suggested: --set train.lr=")
    assert "(the recipe has 0.001)" in said.out
    picture = folder / "pictures" / "lr-find.png"
    assert said.out.endswith(f"picture {picture}\n")
    with Image.open(picture) as image:
        assert min(image.size) > 200
    assert main(command("lr-find", folder, plain, "--steps", "40", "--json")) == 0
    said = capsys.readouterr()
    curve = json.loads(said.out)
    assert "lr-find: unchanged" in said.err
    assert len(curve["lrs"]) == len(curve["losses"]) > 20
    assert 1e-6 < curve["suggestion"] < 1
    # Nothing of it is left for the training to find.
    assert not (folder / "stages" / "train").exists()


def test_the_command_line_reaches_the_recipe(opened, settings, older, tmp_path, capsys) -> None:
    folder = opened(tmp_path / "run").folder
    assert main(command("train", folder, settings, "--teacher", str(older), "--ablate", "--time-budget", "1.5h")) == 0
    recipe = Recipe.load(folder / "recipe.toml")
    assert (recipe.distill.teacher, recipe.distill.ablate, recipe.train.time_budget_s) == (str(older), True, 5400.0)
    assert capsys.readouterr().out.startswith("test_efficientnet: validation top-1 ")


@pytest.mark.parametrize("span", ["10", "m", "-5m", "0s", "1d", "infh", "nanm", ""])
def test_a_time_budget_that_is_no_time_is_refused(settings, tmp_path, capsys, span) -> None:
    assert main(command("train", tmp_path / "run", settings, f"--time-budget={span}")) == 2
    assert "expected a time span such as 90s, 10m or 1.5h" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
