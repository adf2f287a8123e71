"""The part of the line that learns: what is computed again after which change, the teacher, the ablation, the range test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edgetune.artefacts import Checkpoint
from edgetune.cli.main import main
from edgetune.errors import UsageError, WeightsError
from edgetune.learning import ablation_of, checkpoint_of, features_of, teachers_of
from edgetune.pipeline import Run
from edgetune.progress import Silent
from edgetune.recipe import Recipe
from edgetune.train.named import teacher_size
from edgetune.train.schedule import auto_epochs, auto_teacher_epochs

CLASSES = ("blue", "green", "red")


class Lines(Silent):
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgetune.train.network import NetworkSpec, create_network

    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = create_network(NetworkSpec(backbone="test_efficientnet"), 5)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def tints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 noisy pictures, each with a little more of its colour; and five of no class."""
    folder = tmp_path_factory.mktemp("tints")
    random = np.random.default_rng(0)
    for number in range(65):
        name = CLASSES[number % 3] if number < 60 else "../loose"
        image = random.integers(40, 200, (36, 36, 3))
        image[..., 2 - number % 3] += 25
        (folder / "known" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(folder / "known" / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def settings(tints: Path, tiny_weights: Path) -> dict[str, Any]:
    return {
        "data.source": str(tints / "known"),
        "data.image_size": 32,
        "data.near_duplicate_bits": 0,
        "model.backbone": "test_efficientnet",
        "model.weights": str(tiny_weights),
        "train.epochs": 1,
        "train.batch_size": 14,
        "train.threads": 1,
        "train.device": "cpu",
        "train.probe_iterations": 5,
        "watch.tensorboard": False,
        "watch.pictures": False,
    }


@pytest.fixture(scope="session")
def opened(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Open a run in a folder, which has its images already."""
    prepared = tmp_path_factory.mktemp("prepared") / "run"
    prepared.mkdir()
    Run.open(Recipe.load(None, (), dict(settings)), prepared, Silent()).dataset  # noqa: B018 - a property that computes

    def open_run(folder: Path, **changes: Any) -> Run:
        if not folder.exists():
            shutil.copytree(prepared, folder)
        overrides = settings | {name.replace("__", "."): value for name, value in changes.items()}
        return Run.open(Recipe.load(None, (), overrides), folder, Lines())

    return open_run


def stages(run: Run, name: str) -> set[str]:
    return {path.name for path in (run.folder / "stages" / name).glob("*")}


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


@pytest.fixture(scope="session")
def older(opened, tmp_path_factory) -> Path:
    """A run folder with a network in it that knows the task."""
    run = opened(tmp_path_factory.mktemp("older") / "run", train__epochs=3, train__lr=5e-3)
    assert run.checkpoint.epochs == 3
    return run.folder


def test_a_run_folder_teaches(opened, older, tmp_path) -> None:
    run = opened(tmp_path / "run", distill__teacher=str(older))
    [teacher] = teachers_of(run)
    assert isinstance(teacher, Checkpoint)
    assert teacher.folder.parent.parent.parent == older
    checkpoint = run.checkpoint
    assert checkpoint.distillation["teacher_val_metrics"] == pytest.approx(teacher.val_metrics)
    assert (run.folder / "distill").is_dir()
    # The same teacher from another place is the same teacher.
    shutil.copytree(older, tmp_path / "moved")
    again = opened(tmp_path / "run", distill__teacher=str(tmp_path / "moved"))
    assert again.checkpoint == checkpoint
    assert "train: unchanged" in again.progress.lines


def test_a_checkpoints_file_teaches_as_its_run_does(opened, older, tmp_path) -> None:
    (weights,) = older.glob("stages/train/*/model.safetensors")
    by_file, by_run = (teachers_of(opened(tmp_path / "run", distill__teacher=str(path))) for path in (weights, older))
    assert by_file == by_run


@pytest.mark.parametrize(
    ("teacher", "problem", "kind"),
    [
        ("nowhere/model.onnx", "distill.teacher: .* is not a file", UsageError),
        ("nowhere/at/all", "holds no checkpoint", WeightsError),
        ("no_such_backbone", "the backbone is not known", WeightsError),
    ],
)
def test_a_teacher_that_is_not_there_is_named(opened, tmp_path, teacher, problem, kind) -> None:
    with pytest.raises(kind, match=problem):
        teachers_of(opened(tmp_path / "run", distill__teacher=teacher))


def test_a_teacher_by_name_is_fine_tuned_first_and_once(opened, tiny_weights, tmp_path) -> None:
    named = {
        "distill__teacher": "test_efficientnet",
        "distill__teacher_weights": str(tiny_weights),
        "distill__teacher_epochs": 2,
    }
    run = opened(tmp_path / "run", **named, train__strategy="norm-and-bias", train__freeze="stem")
    [teacher] = teachers_of(run)
    assert isinstance(teacher, Checkpoint)
    assert (teacher.epochs, teacher.distillation) == (2, {})
    assert run.checkpoint.distillation["teacher"]
    assert len(stages(run, "teacher")) == 1
    # What the student alone is told does not touch its teacher.
    again = opened(tmp_path / "run", **named, train__strategy="norm-and-bias", train__freeze="stages.0", distill__loss="kl")
    assert again.checkpoint.distillation["loss"] == "kl"
    assert "teacher: unchanged" in again.progress.lines
    assert len(stages(run, "train")) == 2


def test_a_teacher_by_name_stops_before_it_knows_its_images_by_heart(opened, tiny_weights, tmp_path) -> None:
    named = {"distill__teacher": "test_efficientnet", "distill__teacher_weights": str(tiny_weights)}
    run = opened(tmp_path / "run", **named, train__label_smoothing=0.2)
    images = run.dataset.counts["train"]
    [teacher] = teachers_of(run)
    assert isinstance(teacher, Checkpoint)
    assert teacher.epochs == auto_teacher_epochs(images, pretrained=True) < auto_epochs(images)
    assert teacher.network["enlarge_to"] == teacher_size("test_efficientnet", run.dataset.preprocessing.height) > 0
    assert auto_teacher_epochs(images, pretrained=False) == auto_epochs(images)
    # Smoothed labels keep a network's losses above what they are without: it learnt from the labels as they are.
    [smoothed] = teachers_of(opened(tmp_path / "run", **named, distill__teacher_label_smoothing=0.2))
    assert isinstance(smoothed, Checkpoint)
    assert smoothed.history()[-1]["train_loss"] > teacher.history()[-1]["train_loss"]


def test_a_teacher_by_name_may_look_more_closely_than_its_student(opened, tiny_weights, tmp_path) -> None:
    run = opened(
        tmp_path / "run",
        distill__teacher="test_efficientnet",
        distill__teacher_weights=str(tiny_weights),
        distill__teacher_image_size=64,
        train__epochs=1,
    )
    [teacher] = teachers_of(run)
    assert isinstance(teacher, Checkpoint)
    assert teacher.network["enlarge_to"] == 64
    assert run.checkpoint.network["enlarge_to"] is None
    # What the teacher says of the student's validation images is what it reached on them.
    assert run.checkpoint.distillation["teacher_val_metrics"] == pytest.approx(teacher.val_metrics)


def test_a_name_that_comes_again_is_a_teacher_from_another_seed(opened, tiny_weights, tmp_path) -> None:
    run = opened(
        tmp_path / "run",
        distill__teacher="test_efficientnet",
        distill__more_teachers=["test_efficientnet"],
        distill__teacher_weights=str(tiny_weights),
        train__epochs=1,
    )
    first, second = teachers_of(run)
    assert isinstance(first, Checkpoint)
    assert isinstance(second, Checkpoint)
    assert first.weights_path.read_bytes() != second.weights_path.read_bytes()
    assert "the teacher test_efficientnet, from seed 1" in run.progress.lines
    assert run.checkpoint.distillation["teacher"].count("test_efficientnet") == 2


def test_the_ablation_is_the_same_student_without_its_teacher(opened, older, tmp_path) -> None:
    plain = opened(tmp_path / "run")
    assert plain.ablation is None
    alone = plain.checkpoint
    assert "teacher" not in plain.provenance
    run = opened(tmp_path / "run", distill__teacher=str(older), distill__ablate=True)
    ablation = run.ablation
    assert ablation is not None
    assert ablation.images == run.dataset.counts["test"]
    assert ablation.gained is not None
    assert ablation.lost is not None
    # The counts are what the percentages differ by.
    difference = ablation.taught["top-1 %"] - ablation.plain["top-1 %"]
    assert difference == pytest.approx(100 * (ablation.gained - ablation.lost) / ablation.images)
    assert stages(run, "train") == {alone.folder.name, run.checkpoint.folder.name}
    assert run.provenance["teacher"] == run.checkpoint.distillation["teacher"]
    assert ablation_of(opened(tmp_path / "run", distill__teacher=str(older), distill__ablate=True)) == ablation


def test_images_without_labels_are_for_the_student_alone(opened, older, tints, tmp_path) -> None:
    run = opened(tmp_path / "run", distill__teacher=str(older), distill__ablate=True, data__unlabelled=str(tints / "loose"))
    assert run.dataset.unlabelled == 5
    assert run.checkpoint.distillation["unlabelled"] == 5
    assert run.ablation is not None
    assert len(stages(run, "train")) == 2


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
