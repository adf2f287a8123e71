"""The teacher beside the training loop: whose answers are kept, when it is asked, what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.errors import UsageError
from edgetune.recipe import AugmentRecipe, DistillRecipe
from edgetune.train.distill.teacher import TeacherSource

FAST = {"batch_size": 24, "epochs": 3, "probe_iterations": 5}  # Three steps per epoch.


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("augment", [{}, {"mixup": 0.5, "cutmix": 1.0, "mix_probability": 0.7}], ids=["plain", "mixed"])
def test_answers_of_an_earlier_run_change_nothing_but_who_is_asked(
    dataset, pretrained, recipe, run, teacher, tmp_path, monkeypatch, augment
):
    """The same bits without a cache, with a cold one, and with a warm one, which needs no teacher."""
    chosen = recipe(**FAST, augment=AugmentRecipe(**augment))
    run(dataset, pretrained, chosen, tmp_path / "none", teachers=(teacher,), distill=DistillRecipe(cache=False))
    run(dataset, pretrained, chosen, tmp_path / "cold", teachers=(teacher,), answers=tmp_path / "answers")
    with monkeypatch.context() as without:
        without.setattr(TeacherSource, "load", lambda self: pytest.fail("the teacher was asked"))
        run(dataset, pretrained, chosen, tmp_path / "warm", teachers=(teacher,), answers=tmp_path / "answers")
    cold, warm, none = (files(tmp_path / name) for name in ("cold", "warm", "none"))
    assert cold == warm == none
    # And the teacher's word is heard: alone, the student ends elsewhere.
    run(dataset, pretrained, chosen, tmp_path / "alone")
    assert files(tmp_path / "alone")["model.safetensors"] != cold["model.safetensors"]


@pytest.mark.parametrize(
    ("changes", "views", "reason"),
    [
        ({"balance": "sampler"}, "auto", "the sampler draws an image several times"),
        ({"epochs": 2}, 1, "an image meets others in each epoch"),
    ],
)
def test_answers_to_mixed_images_that_never_come_again_are_not_kept(
    dataset, pretrained, recipe, run, teacher, tmp_path, lines, changes, views, reason
):
    chosen = recipe(**{**FAST, **changes}, augment=AugmentRecipe(mixup=0.5))
    taught = {"teachers": (teacher,), "answers": tmp_path / "answers", "distill": DistillRecipe(views=views)}
    run(dataset, pretrained, chosen, tmp_path / "run", lines, **taught)
    assert f"the teacher looks at mixed images each time, as {reason}" in lines.text
    assert not (tmp_path / "answers").exists()


def test_a_head_that_nothing_teaches_is_refused(dataset, pretrained, recipe, run, teacher, tmp_path):
    distill = DistillRecipe(loss="features", label_weight=0.0)
    with pytest.raises(UsageError, match="the head would learn nothing"):
        run(dataset, pretrained, recipe(), tmp_path, teachers=(teacher,), distill=distill)


def test_the_teacher_is_on_record(dataset, pretrained, recipe, run, teacher, tmp_path, lines):
    checkpoint = run(dataset, pretrained, recipe(**FAST), tmp_path, lines, teachers=(teacher,))
    assert checkpoint.distillation["loss"] == "kl"
    assert checkpoint.distillation["teacher_val_metrics"] == teacher.val_metrics
    assert "teacher test_efficientnet" in lines.text


def test_two_teachers_are_averaged_and_each_is_asked_once(
    dataset, pretrained, recipe, run, teacher, tmp_path, lines, monkeypatch
):
    other = run(dataset, pretrained, recipe(**FAST), tmp_path / "other", seed=4)
    chosen, answers = recipe(**FAST), tmp_path / "answers"
    run(dataset, pretrained, chosen, tmp_path / "first", teachers=(teacher,), answers=answers)
    run(dataset, pretrained, chosen, tmp_path / "second", teachers=(other,), answers=answers)
    with monkeypatch.context() as without:
        # What each of them said alone is all that is needed of them together.
        without.setattr(TeacherSource, "load", lambda self: pytest.fail("a teacher was asked again"))
        both = run(dataset, pretrained, chosen, tmp_path / "both", lines, teachers=(teacher, other), answers=answers)
        turned = run(dataset, pretrained, chosen, tmp_path / "turned", teachers=(other, teacher), answers=answers)
    assert both.distillation["teacher"] == "test_efficientnet at 32 x 32 px and test_efficientnet at 32 x 32 px"
    assert "teacher test_efficientnet at 32 x 32 px and" in lines.text
    assert both.val_metrics == turned.val_metrics
    weights = [files(tmp_path / name)["model.safetensors"] for name in ("first", "second", "both")]
    assert len(set(weights)) == 3
