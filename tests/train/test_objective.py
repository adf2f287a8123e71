"""The loss of every kind of head against torch's own reductions and numbers computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgetune.device.heads import Head
from edgetune.errors import UsageError
from edgetune.recipe import TaskRecipe
from edgetune.train.objective import LARGEST_WEIGHT, Mixture, Objective, fold_units

CLASS = Head("kind", "single-label", ("a", "b", "c"))
LABELS = Head("parts", "multi-label", ("x", "y"))
VALUES = Head("size", "regression", ("width", "height"))
NAN = math.nan
# Class, two labels, two values; what is missing is missing per head and per column.
TARGETS = torch.tensor(
    [
        [0, 1, 0, 1000, 7],
        [2, NAN, 1, 1006, 7],
        [NAN, 0, NAN, NAN, 7],
        [1, 1, 1, 1003, NAN],
        [1, NAN, NAN, NAN, NAN],
        [0, 0, 0, 997, 7],
    ]
)


def objective(*heads: Head, columns: slice = slice(None), train: torch.Tensor = TARGETS, **more: Any) -> Objective:
    tasks = {name: TaskRecipe(**changes) for name, changes in more.pop("tasks", {}).items()}
    return Objective(heads, tasks, train[:, columns].numpy(), **{"label_smoothing": 0.0} | more)


def whole(**more: Any) -> Objective:
    return objective(CLASS, LABELS, VALUES, **more)


def logits(columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(len(TARGETS), columns, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_single_label_is_torchs_cross_entropy_over_the_known(smoothing: float) -> None:
    given, labels = logits(3), TARGETS[:, 0]
    known = ~labels.isnan()
    expected = F.cross_entropy(given[known], labels[known].long(), label_smoothing=smoothing)
    assert objective(CLASS, columns=slice(1), label_smoothing=smoothing).loss(given, TARGETS[:, :1]).item() == pytest.approx(
        expected.item()
    )


def test_bce_for_a_single_label_by_hand() -> None:
    """One image of class 1 of 3, logits 0: each column costs log 2; smoothed targets do not change that."""
    found = objective(CLASS, columns=slice(1), tasks={"kind": {"loss": "bce"}}, label_smoothing=0.3)
    one = torch.tensor([[1.0]])
    assert found.loss(torch.zeros(1, 3), one).item() == pytest.approx(math.log(2))
    # Of logits (0, 2, 0) and no smoothing: two columns cost log 2, the right one log(1 + e^-2).
    sharp = found.loss(torch.tensor([[0.0, 2.0, 0.0]]), one, smoothing=0.0)
    assert sharp.item() == pytest.approx((2 * math.log(2) + math.log1p(math.exp(-2))) / 3)
    # Smoothed by 0.3, the right column's target is 0.8 and the others' 0.1: p log-terms of the logit 2.
    smooth = found.loss(torch.tensor([[0.0, 2.0, 0.0]]), one)
    assert smooth.item() == pytest.approx((2 * math.log(2) + math.log1p(math.exp(-2)) + 0.2 * 2) / 3)


def test_labels_are_bce_over_the_known_ones() -> None:
    given, wanted = logits(2), TARGETS[:, 1:3]
    known = ~wanted.isnan()
    expected = F.binary_cross_entropy_with_logits(given[known], wanted[known])
    assert objective(LABELS, columns=slice(1, 3)).loss(given, wanted).item() == pytest.approx(expected.item())


def test_values_are_learnt_in_standard_deviations_from_their_mean() -> None:
    found = objective(VALUES, columns=slice(3, 5))
    known = np.array([1000, 1006, 1003, 997.0])
    assert found.offset.tolist() == pytest.approx([known.mean(), 7])
    # A value that never varies has no unit of its own.
    assert found.scale.tolist() == pytest.approx([known.std(), 1], abs=1e-4)
    wanted = found.standardised(TARGETS[:, 3:])
    assert torch.equal(wanted.isnan(), TARGETS[:, 3:].isnan())
    assert wanted[0].tolist() == pytest.approx([(1000 - known.mean()) / known.std(), 0], abs=1e-4)
    assert found.loss(torch.zeros(6, 2), wanted).item() == pytest.approx(4 / 8, abs=1e-4)  # Variance 1 of the first column.
    back = found.in_units(wanted)
    assert torch.allclose(back.nan_to_num(), TARGETS[:, 3:].nan_to_num(), atol=1e-3)


def test_huber_is_quadratic_within_delta_and_linear_beyond() -> None:
    found = objective(VALUES, columns=slice(3, 5), tasks={"size": {"kind": "regression", "loss": "huber", "huber_delta": 0.5}})
    errors = torch.tensor([[0.5, 3.0]])
    assert found.loss(errors, torch.zeros(1, 2)).item() == pytest.approx((0.5 * 0.25 + 0.5 * (3 - 0.25)) / 2)


def test_a_column_that_no_train_image_knows_leaves_the_network_finite() -> None:
    unknown = torch.full((4, 2), NAN)
    unknown[:, 0] = torch.arange(4)
    found = objective(VALUES, train=unknown)
    last = nn.Linear(3, 2)
    fold_units(last, found)
    assert last.bias.isfinite().all()
    assert last.weight.isfinite().all()


def test_what_is_not_known_leaves_loss_and_gradient_out() -> None:
    found = whole()
    given = logits(7).requires_grad_(True)
    wanted = found.standardised(TARGETS)
    found.loss(given, wanted).backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()
    missing = torch.cat([wanted[:, :1].isnan().expand(-1, 3), wanted[:, 1:].isnan()], dim=1)
    assert (given.grad[missing] == 0).all()
    assert (given.grad[~missing] != 0).all()
    # Nor does it matter what the network says there.
    changed = torch.where(missing, 50.0, given.detach())
    assert found.loss(changed, wanted).item() == found.loss(given, wanted).item()


def test_a_batch_of_which_nothing_is_known_costs_nothing() -> None:
    given = logits(7).requires_grad_(True)
    loss = whole().loss(given, torch.full((6, 5), NAN))
    loss.backward()
    assert loss.item() == 0
    assert given.grad is not None
    assert not given.grad.any()


def test_heads_add_up_by_their_weights() -> None:
    given, wanted = logits(7), whole().standardised(TARGETS)
    alone = [
        objective(CLASS, columns=slice(1)).loss(given[:, :3], wanted[:, :1]),
        objective(LABELS, columns=slice(1, 3)).loss(given[:, 3:5], wanted[:, 1:3]),
        objective(VALUES, columns=slice(3, 5)).loss(given[:, 5:], wanted[:, 3:]),
    ]
    assert whole().loss(given, wanted).item() == pytest.approx(sum(alone).item())  # type: ignore[union-attr]
    tasks = {
        "kind": {"weight": 2.0},
        "parts": {"kind": "multi-label", "weight": 0.5},
        "size": {"kind": "regression", "weight": 3.0},
    }
    weighed = 2 * alone[0] + 0.5 * alone[1] + 3 * alone[2]
    assert whole(tasks=tasks).loss(given, wanted).item() == pytest.approx(weighed.item())


def test_parts_with_the_whole_batchs_counts_add_up_to_the_whole() -> None:
    found = whole(label_smoothing=0.1, balanced=True)
    given, wanted = logits(7), found.standardised(TARGETS)
    known = found.known(wanted)
    assert known.tolist() == [5, 8, 8]
    halves = [found.loss(given[part], wanted[part], known=known) for part in (slice(2), slice(2, None))]
    assert sum(halves).item() == pytest.approx(found.loss(given, wanted).item(), rel=1e-6)  # type: ignore[union-attr]


def test_classes_weigh_alike() -> None:
    """Of five known images, classes a, b, c have 2, 2, 1: N / (C n) = 5/6, 5/6, 5/3, whose mean over the images is 1."""
    found = objective(CLASS, columns=slice(1), balanced=True)
    (weights,) = found.weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([5 / 6, 5 / 6, 5 / 3])
    labels = TARGETS[:, 0][~TARGETS[:, 0].isnan()].long()
    assert weights[labels].mean().item() == pytest.approx(1)
    given = logits(3)[: len(labels)]
    expected = (F.cross_entropy(given, labels, reduction="none") * weights[labels]).mean()
    assert found.loss(given, labels[:, None].float()).item() == pytest.approx(expected.item())
    assert found.loss(given, labels[:, None].float(), weighed=False).item() == pytest.approx(
        F.cross_entropy(given, labels).item()
    )


def test_presence_and_absence_of_a_label_weigh_alike() -> None:
    rare = torch.zeros(1000, 2)
    rare[0, 0], rare[:, 1] = 1, 1
    rare[1, :] = NAN
    found = objective(LABELS, train=rare, balanced=True)
    (weights,) = found.weights
    assert weights is not None
    # 998 absent to 1 present is more than the largest weight; a label that is always there weighs next to nothing.
    assert weights.tolist() == [LARGEST_WEIGHT, pytest.approx(1 / LARGEST_WEIGHT)]
    cost = found.loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert cost.item() == pytest.approx((LARGEST_WEIGHT + 1) * math.log(2) / 2)


def test_a_regression_has_no_classes_to_balance() -> None:
    with pytest.raises(UsageError, match="no classes to balance"):
        objective(VALUES, columns=slice(3, 5), balanced=True)


def test_mixed_images_cost_by_their_shares() -> None:
    found = whole(label_smoothing=0.1)
    given, wanted = logits(7), found.standardised(TARGETS.nan_to_num(1.0))
    partners = wanted[torch.tensor([3, 4, 5, 0, 1, 2])]
    share = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.6, 0.9])
    mixed = found.loss(given, wanted, mixture=Mixture(partners, share))
    each = [
        share[i] * found.loss(given[i : i + 1], wanted[i : i + 1])
        + (1 - share[i]) * found.loss(given[i : i + 1], partners[i : i + 1])
        for i in range(6)
    ]
    assert mixed.item() == pytest.approx((sum(each) / 6).item(), rel=1e-5)  # type: ignore[union-attr]
    alone = found.loss(given, wanted, mixture=Mixture(partners, torch.ones(6)))
    assert alone.item() == pytest.approx(found.loss(given, wanted).item())


def test_the_units_are_folded_into_the_last_layer_exactly() -> None:
    found = whole()
    last = nn.Linear(9, 7).double()
    features = torch.randn(5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    before = last(features).detach()
    fold_units(last, found)
    assert torch.allclose(last(features), found.in_units(before), rtol=1e-12, atol=0)
    # Heads that are no regression keep their logits to the bit.
    assert torch.equal(last(features)[:, :5], before[:, :5])


def test_scores_are_in_the_units_of_the_data_and_without_smoothing_and_weights() -> None:
    found = whole(label_smoothing=0.2, balanced=True)
    given = logits(7)
    reached = found.scores(given, TARGETS.numpy())
    plain = whole()
    assert reached.loss == pytest.approx(plain.loss(given, plain.standardised(TARGETS)).item())
    assert list(reached.metrics) == [
        "kind: top-1 %", "parts: mAP %", "size: width MAE", "size: width RMSE", "size: width R²",
        "size: height MAE", "size: height RMSE", "size: height R²",
    ]  # fmt: skip
    known = TARGETS[:, 3].isfinite()
    error = found.in_units(given)[known, 5] - TARGETS[known, 3]
    assert reached.metrics["size: width MAE"] == pytest.approx(error.abs().mean().item(), rel=1e-5)
