"""Teachers: where they come from, what a student takes from them, and what that gave."""

from __future__ import annotations

import shutil

import pytest

from edgetune.artefacts import Checkpoint
from edgetune.errors import UsageError, WeightsError
from edgetune.learning import ablation_of, teachers_of
from edgetune.train.named import teacher_size
from edgetune.train.schedule import auto_epochs, auto_teacher_epochs

from .stages import stages


@pytest.fixture
def named(tiny_weights) -> dict[str, str]:
    """The settings of a teacher that is given by name."""
    return {"distill__teacher": "test_efficientnet", "distill__teacher_weights": str(tiny_weights)}


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


def test_a_teacher_by_name_is_fine_tuned_first_and_once(opened, named, tmp_path) -> None:
    named |= {
        "distill__teacher_epochs": 2,
        "distill__teacher_members": 1,
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


def test_a_time_budget_is_said_not_to_be_of_the_teachers(opened, named, older, tmp_path) -> None:
    line = "the time budget is the student's alone: fine-tuning teachers given by name comes on top"
    run = opened(tmp_path / "run", **named, distill__teacher_epochs=1, distill__teacher_members=1, train__time_budget_s=600.0)
    [teacher] = teachers_of(run)
    assert isinstance(teacher, Checkpoint)
    assert run.progress.lines.count(line) == 1
    given = opened(tmp_path / "given", distill__teacher=str(older), train__time_budget_s=600.0)
    teachers_of(given)
    assert line not in given.progress.lines


def test_a_teacher_by_name_stops_before_it_knows_its_images_by_heart(opened, named, tmp_path) -> None:
    named |= {
        "distill__teacher_members": 1,
    }
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


def test_a_teacher_by_name_may_look_more_closely_than_its_student(opened, named, tmp_path) -> None:
    run = opened(
        tmp_path / "run",
        **named,
        distill__teacher_image_size=64,
        distill__teacher_members=1,
        train__epochs=1,
    )
    [teacher] = teachers_of(run)
    assert isinstance(teacher, Checkpoint)
    assert teacher.network["enlarge_to"] == 64
    assert run.checkpoint.network["enlarge_to"] is None
    # What the teacher says of the student's validation images is what it reached on them.
    assert run.checkpoint.distillation["teacher_val_metrics"] == pytest.approx(teacher.val_metrics)


def test_a_teacher_by_name_is_fine_tuned_from_two_seeds(opened, named, tmp_path) -> None:
    named |= {
        "train__epochs": 1,
    }
    run = opened(tmp_path / "run", **named)
    first, second = teachers_of(run)
    assert isinstance(first, Checkpoint)
    assert isinstance(second, Checkpoint)
    assert first.weights_path.read_bytes() != second.weights_path.read_bytes()
    assert "the teacher test_efficientnet, from seed 1" in run.progress.lines
    assert run.checkpoint.distillation["teacher"].count("test_efficientnet") == 2
    # What has been fine-tuned is not again, however many are asked for; features have no mean.
    assert teachers_of(opened(tmp_path / "run", **named, distill__teacher_members=1)) == (first,)
    assert teachers_of(opened(tmp_path / "run", **named, distill__loss="features")) == (first,)
    # A linear probe is the same from every seed.
    assert len(teachers_of(opened(tmp_path / "run", **named, distill__teacher_epochs=0))) == 1


def test_both_fine_tunings_teach_one_network_that_teaches_the_student(opened, named, tmp_path) -> None:
    named |= {
        "train__epochs": 1,
        "train__patience": 100,
    }
    members = teachers_of(opened(tmp_path / "run", **named))
    run = opened(tmp_path / "run", **named, distill__teacher_generations=2)
    images = run.dataset.counts["train"]
    [teacher] = teachers_of(run)
    assert isinstance(teacher, Checkpoint)
    assert teacher not in members
    assert teacher.distillation["teacher"].count("test_efficientnet") == len(members) == 2
    assert teacher.distillation["loss"] == "kl"
    assert teacher.epochs == auto_teacher_epochs(images, pretrained=True, taught=True) > members[0].epochs
    assert run.progress.lines.count("teacher: unchanged") == 2
    assert "the teacher test_efficientnet, generation 2, taught by the one before" in run.progress.lines
    assert run.checkpoint.distillation["teacher"].count("test_efficientnet") == 1
    # One generation more learns from one teacher alone.
    later = opened(tmp_path / "run", **named, distill__teacher_generations=3, distill__teacher_taught_epochs=1)
    [third] = teachers_of(later)
    assert isinstance(third, Checkpoint)
    assert (third.epochs, third.distillation["teacher"].count("test_efficientnet")) == (1, 1)


def test_a_teacher_and_itself_are_no_two_teachers(opened, older, tmp_path) -> None:
    (weights,) = older.glob("stages/train/*/model.safetensors")
    run = opened(tmp_path / "run", distill__teacher=str(older), distill__more_teachers=[str(weights)])
    with pytest.raises(UsageError, match=rf"more_teachers: {weights} is the same teacher as {older}"):
        teachers_of(run)


@pytest.mark.parametrize(
    ("other", "problem", "kind"),
    [
        ("nowhere/model.onnx", "is not a file", UsageError),
        ("no_such_backbone", "the backbone is not known", WeightsError),
    ],
)
def test_a_wrong_teacher_costs_no_fine_tuning_of_others(opened, named, tmp_path, other, problem, kind) -> None:
    run = opened(tmp_path / "run", **named, distill__more_teachers=[other])
    with pytest.raises(kind, match=problem):
        teachers_of(run)
    assert not (run.folder / "stages" / "teacher").exists()


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
