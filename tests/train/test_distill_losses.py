from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, rel_entr, softmax

from edgetune.device.heads import Head, default_heads
from edgetune.recipe import DistillRecipe
from edgetune.train.distill.losses import create_projector, distillation_loss, feature_loss

HEADS = default_heads(["a", "b", "c", "d", "e"])
LOSSES = ("dist", "kl", "dkd")


def logits(seed: int, rows: int = 12, columns: int = 5, spread: float = 2.0) -> torch.Tensor:
    return spread * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(rows: int = 12, classes: int = 5) -> torch.Tensor:
    return (torch.arange(rows) % classes).float()[:, None]


def loss_of(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor | None = None, **recipe: object) -> float:
    targets = labels(len(student)) if targets is None else targets
    plain = DistillRecipe(**{"temperature": 1.0, **recipe})  # type: ignore[arg-type]
    return distillation_loss(student, teacher, targets, HEADS, plain).item()  # type: ignore[arg-type]


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return rel_entr(p, q).sum(axis=1)


def test_kl_by_hand() -> None:
    heads = default_heads(["yes", "no"])
    recipe = DistillRecipe(loss="kl", temperature=2.0)
    # At T = 2 the teacher says 3/4 and 1/4, the student 1/2 and 1/2: 4 (3/4 ln 3/2 + 1/4 ln 1/2).
    teacher, student = torch.tensor([[2 * math.log(3.0), 0.0]]), torch.tensor([[5.0, 5.0]])
    found = distillation_loss(student, teacher, torch.tensor([[0.0]]), heads, recipe).item()
    assert found == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_scipys(temperature: float) -> None:
    student, teacher = logits(1), logits(2)
    expected = temperature**2 * kl(softmax(teacher / temperature, axis=1), softmax(student / temperature, axis=1)).mean()
    assert loss_of(student, teacher, loss="kl", temperature=temperature) == pytest.approx(expected, rel=1e-5)


def test_dkd_written_out() -> None:
    student, teacher, temperature, alpha, beta = logits(3), logits(4), 3.0, 1.5, 6.0
    p, q = softmax(teacher.numpy() / temperature, axis=1), softmax(student.numpy() / temperature, axis=1)
    expected = 0.0
    for row in range(12):
        target = row % 5
        pt, qt = p[row, target], q[row, target]
        others = [column for column in range(5) if column != target]
        expected += alpha * (pt * math.log(pt / qt) + (1 - pt) * math.log((1 - pt) / (1 - qt)))
        expected += beta * sum(p[row, j] / (1 - pt) * math.log(p[row, j] / (1 - pt) / (q[row, j] / (1 - qt))) for j in others)
    expected *= temperature**2 / 12
    found = loss_of(student, teacher, loss="dkd", temperature=temperature, alpha=alpha, beta=beta)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", [0.0, 3.0, math.nan])
def test_dkd_puts_kl_together_again_whatever_the_target_is(target: float) -> None:
    student, teacher = logits(5, rows=1), logits(6, rows=1)
    probabilities = teacher.softmax(dim=1)[0]
    place = int(probabilities.argmax()) if math.isnan(target) else int(target)
    rest = 1 - probabilities[place].item()
    found = loss_of(student, teacher, torch.tensor([[target]]), loss="dkd", alpha=1.0, beta=rest)
    assert found == pytest.approx(loss_of(student, teacher, loss="kl"), rel=1e-4)


def test_dkd_without_a_label_takes_the_teachers_decision() -> None:
    student, teacher = logits(7), logits(8)
    decided = teacher.argmax(dim=1).float()[:, None]
    unknown = torch.full_like(decided, math.nan)
    assert loss_of(student, teacher, unknown, loss="dkd") == loss_of(student, teacher, decided, loss="dkd")
    assert loss_of(student, teacher, labels(), loss="dkd") != loss_of(student, teacher, decided, loss="dkd")


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_dist_is_numpys_correlation(temperature: float) -> None:
    student, teacher = logits(9), logits(10)
    ours, theirs = softmax(student.numpy() / temperature, axis=1), softmax(teacher.numpy() / temperature, axis=1)
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(ours.T, theirs.T, strict=True)])
    found = loss_of(student, teacher, loss="dist", temperature=temperature, beta=2.0, gamma=0.5)
    assert found == pytest.approx(temperature**2 * (2.0 * inter + 0.5 * intra), rel=1e-4)


@settings(max_examples=25)
@given(share=st.floats(0.2, 1.0), seed=st.integers(0, 10_000))
def test_dist_does_not_see_how_certain_the_teacher_is(share: float, seed: int) -> None:
    """Probabilities mixed with equal ones are an affine change with a positive factor."""
    student, teacher = logits(seed), logits(seed + 1)
    paler = (share * teacher.softmax(dim=1) + (1 - share) / 5).log()
    assert loss_of(student, paler, loss="dist") == pytest.approx(loss_of(student, teacher, loss="dist"), abs=1e-4)


def test_kl_does_see_it() -> None:
    student, teacher = logits(11), logits(12)
    paler = (0.5 * teacher.softmax(dim=1) + 0.1).log()
    assert abs(loss_of(student, paler, loss="kl") - loss_of(student, teacher, loss="kl")) > 0.1


@settings(max_examples=25)
@given(loss=st.sampled_from(LOSSES), temperature=st.sampled_from([0.5, 1.0, 4.0]), seed=st.integers(0, 10_000))
def test_nothing_is_lost_by_saying_the_same(loss: str, temperature: float, seed: int) -> None:
    teacher = logits(seed)
    shifted = teacher + logits(seed + 1, columns=1)  # Softmax does not see it.
    assert loss_of(shifted, teacher, loss=loss, temperature=temperature) == pytest.approx(0.0, abs=2e-4)
    assert loss_of(logits(seed + 2), teacher, loss=loss, temperature=temperature) > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e4, 6e4])
def test_gradients_are_finite_for_extreme_logits(loss: str, size: float) -> None:
    student = (size * logits(13).sign()).float().requires_grad_()
    teacher = (size * logits(14).sign()).float()
    heads = (*HEADS[:1], Head("tags", "multi-label", ("x", "y")))
    both = torch.cat([student, student[:, :2]], dim=1)
    targets = torch.full((12, 3), math.nan)
    found = distillation_loss(both, torch.cat([teacher, teacher[:, 2:4]], dim=1), targets, heads, DistillRecipe(loss=loss))
    found.backward()
    assert found.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_student_without_an_opinion_is_not_thrown_far_by_dist() -> None:
    student = torch.zeros(12, 5, requires_grad=True)
    distillation_loss(student, logits(15), labels(), HEADS, DistillRecipe()).backward()
    assert student.grad is not None
    assert 0 < student.grad.norm() < 1e4


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_multi_label_head_is_scipys_kl_of_each_label(temperature: float) -> None:
    heads = (Head("tags", "multi-label", ("x", "y", "z")),)
    student, teacher = logits(16, columns=3), logits(17, columns=3)
    p, q = expit(teacher.numpy() / temperature), expit(student.numpy() / temperature)
    expected = temperature**2 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean()
    recipe = DistillRecipe(loss="dist", temperature=temperature)
    found = distillation_loss(student, teacher, torch.full((12, 3), math.nan), heads, recipe)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_heads_are_compared_each_by_its_kind_and_weighed() -> None:
    heads = (Head("size", "regression", ("w", "h")), *HEADS, Head("tags", "multi-label", ("x", "y")))
    student, teacher = logits(18, columns=9), logits(19, columns=9)
    targets = torch.full((12, 5), math.nan)
    recipe = DistillRecipe(loss="kl")

    def alone(index: int, columns: slice) -> float:
        return distillation_loss(student[:, columns], teacher[:, columns], targets, heads[index : index + 1], recipe).item()

    regression = ((student - teacher)[:, :2] ** 2).mean().item()
    assert alone(0, slice(0, 2)) == pytest.approx(regression, rel=1e-5)
    found = distillation_loss(student, teacher, targets, heads, recipe, weights=(0.5, 1.0, 3.0)).item()
    expected = 0.5 * regression + alone(1, slice(2, 7)) + 3.0 * alone(2, slice(7, 9))
    assert found == pytest.approx(expected, rel=1e-5)


def test_dkd_reads_the_targets_of_its_own_head() -> None:
    heads = (Head("size", "regression", ("w", "h")), *HEADS)
    student, teacher = logits(20, columns=7), logits(21, columns=7)
    targets = torch.cat([torch.zeros(12, 2), labels()], dim=1)
    student[:, :2] = teacher[:, :2]
    found = distillation_loss(student, teacher, targets, heads, DistillRecipe(loss="dkd", temperature=1.0)).item()
    assert found == pytest.approx(loss_of(student[:, 2:], teacher[:, 2:], loss="dkd"), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_over_two_processes_is_the_same_batch(loss: str) -> None:
    student, teacher, recipe = logits(22).requires_grad_(), logits(23), DistillRecipe(loss=loss, temperature=1.0)
    whole = distillation_loss(student, teacher, labels(), HEADS, recipe)
    expected = torch.autograd.grad(whole, student)[0]

    def gather_of(own: slice) -> Callable[[torch.Tensor], torch.Tensor]:
        tables = [probabilities.softmax(dim=1) for probabilities in (student.float(), teacher.float())]

        def gather(rows: torch.Tensor) -> torch.Tensor:
            (found,) = [table for table in tables if torch.equal(table[own], rows)]
            return found

        return gather

    parts = [
        distillation_loss(student[own], teacher[own], labels()[own], HEADS, recipe, gather=gather_of(own))
        for own in (slice(0, 6), slice(6, 12))
    ]
    together = torch.stack(parts).mean()
    assert together.item() == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(together, student)[0], expected, rtol=1e-4, atol=1e-7)


def test_nothing_is_learnt_through_the_teacher() -> None:
    student, teacher = logits(24).requires_grad_(), logits(25).requires_grad_()
    distillation_loss(student, teacher, labels(), HEADS, DistillRecipe()).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_half_precision_is_compared_in_single() -> None:
    student, teacher = logits(26).bfloat16(), logits(27).float()
    assert loss_of(student, teacher, loss="dist") == loss_of(student.float(), teacher, loss="dist")


def test_features_are_no_logits() -> None:
    with pytest.raises(ValueError, match="features does not compare logits"):
        loss_of(logits(28), logits(29), loss="features")


def test_features_are_compared_by_direction() -> None:
    projector = create_projector(2, 3, seed=0)
    with torch.no_grad():
        projector.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        projector.bias.zero_()
    student = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    teacher = torch.tensor([[5.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    found = feature_loss(student, teacher, projector).item()
    assert found == pytest.approx((0 + (1 - math.sqrt(0.5)) + 1) / 3, abs=1e-6)
    assert feature_loss(3 * student, 7 * teacher, projector).item() == pytest.approx(found, abs=1e-6)


def test_the_projector_learns_comes_from_its_seed_and_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    projector, again, other = (create_projector(4, 6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(projector.weight, again.weight)
    assert not torch.equal(projector.weight, other.weight)
    student = logits(30, columns=4).float().requires_grad_()
    feature_loss(student, logits(31, columns=6).float(), projector).backward()
    assert student.grad is not None
    assert student.grad.norm() > 0
    assert projector.weight.grad is not None
    assert projector.weight.grad.norm() > 0
    other.load_state_dict(projector.state_dict())
    assert torch.equal(other.weight, projector.weight)
