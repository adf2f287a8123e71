"""Several teachers as one: what their mean is, and what they reach together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgetune.device.heads import Head, default_heads
from edgetune.recipe import DistillRecipe
from edgetune.train.distill.committee import Committee, mean_answers
from edgetune.train.distill.guide import Guide
from edgetune.train.distill.losses import create_projector
from edgetune.train.distill.teacher import TeacherSource

CLASSES = default_heads(["a", "b", "c"])
CPU = torch.device("cpu")


class Constant:
    """A teacher that says the same of whatever it sees."""

    feature_width = 4
    width = 3

    def __init__(self, *logits: float) -> None:
        self._logits = torch.tensor(logits)

    def logits(self, views: torch.Tensor) -> torch.Tensor:
        return self._logits.expand(len(views), -1)

    def features(self, views: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(views), 4)


def guide(name: str, *logits: float) -> Guide:
    source = TeacherSource(identity=name, description=name, create=lambda: Constant(*logits))
    return Guide(source, None, DistillRecipe(), CLASSES, CPU)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_classes_are_averaged_as_probabilities_at_the_temperature(temperature: float) -> None:
    said = [torch.tensor([[4.0, 0.0, -2.0], [30.0, 0.0, 0.0]]), torch.tensor([[-1.0, 3.0, 0.0], [0.0, 90.0, 0.0]])]
    found = (mean_answers(said, CLASSES, temperature) / temperature).softmax(dim=1)
    torch.testing.assert_close(found, sum((each / temperature).softmax(dim=1) for each in said) / 2)


def test_labels_are_averaged_one_by_one_and_values_as_they_are() -> None:
    heads = (
        Head(name="tags", kind="multi-label", columns=("x", "y"), thresholds=(0.5, 0.5)),
        Head(name="score", kind="regression", columns=("score",)),
    )
    said = [torch.tensor([[2.0, -60.0, 1.0]]), torch.tensor([[-1.0, -60.0, 4.0]]), torch.tensor([[0.0, -60.0, 4.0]])]
    found = mean_answers(said, heads, 2.0)
    expected = sum((each[:, 0] / 2).sigmoid() for each in said) / 3
    torch.testing.assert_close((found[:, 0] / 2).sigmoid(), expected)
    torch.testing.assert_close(found[:, 1:], torch.tensor([[-60.0, 3.0]]))


def test_the_loss_is_nil_for_a_student_that_says_what_they_say_in_the_mean() -> None:
    committee = Committee([guide("one", 3.0, 0.0, 0.0), guide("other", 0.0, 2.0, 0.0)])
    assert committee.description == "one and other"
    rows, views = np.arange(2), torch.zeros(2, 3, 8, 8)
    answers = committee.answers(0, rows, views)
    targets = torch.zeros(2, 1)
    assert committee.loss(answers, answers, targets).item() == pytest.approx(0.0, abs=1e-6)
    assert committee.loss(committee.guides[0].answers(0, rows, views), answers, targets).item() > 0.05


def test_what_they_reach_together_may_be_more_than_any_of_them() -> None:
    # Each is sure of a wrong class; the one that they share is right.
    committee = Committee([guide("one", 3.0, 2.8, 0.0), guide("other", 0.0, 2.8, 3.0)])
    images, targets = np.zeros((5, 8, 8, 3), np.uint8), np.ones((5, 1), np.float32)
    assert [each.evaluate_teacher(images, targets)["top-1 %"] for each in committee.guides] == [0.0, 0.0]
    assert committee.evaluate_teacher(images, targets)["top-1 %"] == 100.0


def test_features_have_no_mean() -> None:
    on_features = Guide(
        guide("one").source, None, DistillRecipe(loss="features"), CLASSES, CPU, projector=create_projector(4, 4, 0)
    )
    with pytest.raises(ValueError, match="no mean"):
        Committee([on_features, on_features])
