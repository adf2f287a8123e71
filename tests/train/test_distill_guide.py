from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgetune.device.heads import Head, default_heads
from edgetune.errors import DataError, UsageError
from edgetune.progress import Silent
from edgetune.recipe import DistillRecipe
from edgetune.train.distill.cache import AnswerCache, as_stored
from edgetune.train.distill.guide import Guide
from edgetune.train.distill.losses import create_projector
from edgetune.train.distill.network_teacher import NetworkTeacher
from edgetune.train.distill.opening import Views, open_guide
from edgetune.train.distill.teacher import Teacher, TeacherSource

CPU = torch.device("cpu")
HEADS = default_heads(["a", "b", "c"])
ROWS = 20


def features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    assert isinstance(network, nn.Sequential)
    pooled: torch.Tensor = network[:-1](images)
    return pooled


def teacher(columns: int = 3) -> Teacher:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, columns))
    plain: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": (8, 8), "device": CPU}
    return NetworkTeacher(network, order=range(columns), forward_features=features, **plain)


def source(columns: int = 3) -> TeacherSource:
    return TeacherSource(identity="it", description="a small one", create=lambda: teacher(columns))


def nobody() -> TeacherSource:
    def create() -> Teacher:
        raise AssertionError("nobody may be asked")

    return TeacherSource(identity="it", description="a small one", create=create)


def guide(folder: Path | None, *, who: TeacherSource | None = None, **recipe: Any) -> Guide:
    cache = folder and AnswerCache(folder, "key", views=2, rows=ROWS, width=3)
    return Guide(who or source(), cache, DistillRecipe(**recipe), HEADS, CPU)


def seen(view: int, rows: np.ndarray) -> torch.Tensor:
    """Return views that depend on the view's number and the row, as the loop's do."""
    parts = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1000 * view + int(row))) for row in rows]
    return torch.stack(parts)


def opened(folder: Path, who: TeacherSource, **changes: Any) -> Guide:
    known = {"images": "digest", "draws": {"seed": 0}, "count": 2, "rows": ROWS, "validation_rows": 9}
    known |= {name: changes.pop(name) for name in list(changes) if name in known}
    arguments: dict[str, Any] = {"student_width": 4, "seed": 0, "device": CPU, "progress": Silent()}
    arguments |= {name: changes.pop(name) for name in list(changes) if name in ("offset", "scale", "seed")}
    heads = changes.pop("heads", HEADS)
    return open_guide(who, DistillRecipe(**changes), heads, Views(**known), folder, **arguments)


def test_the_first_time_the_second_time_and_without_a_cache_answers_are_the_same_bits(tmp_path: Path) -> None:
    batches = [np.array([3, 4, 17]), np.array([0, 19, 5, 6]), np.array([3, 1])]
    first, without = guide(tmp_path / "a"), guide(None)
    said = [first.answers(1, rows, seen(1, rows)) for rows in batches]
    again = guide(tmp_path / "a", who=nobody())
    for rows, expected in zip(batches, said, strict=True):
        assert torch.equal(again.answers(1, rows, seen(1, rows)), expected)
        assert torch.equal(without.answers(1, rows, seen(1, rows)), expected)
        exact = teacher().logits(seen(1, rows))
        torch.testing.assert_close(expected, exact, rtol=1e-3, atol=1e-6)
        assert np.array_equal(expected.numpy(), as_stored(exact.numpy()))


def test_the_students_precision_and_random_numbers_are_its_own(tmp_path: Path) -> None:
    rows = np.arange(4)
    expected = guide(None).answers(0, rows, seen(0, rows))
    torch.manual_seed(8)
    before = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = guide(None).answers(0, rows, seen(0, rows))
        opened(tmp_path, source(), loss="features")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found, expected)


def test_it_counts_who_answered(tmp_path: Path) -> None:
    who, rows = guide(tmp_path / "a"), np.arange(6)
    who.answers(0, rows, seen(0, rows))
    assert (who.teacher_images, who.cached_images) == (6, 0)
    assert who.teacher_seconds > 0
    spent = who.teacher_seconds
    who.answers(0, rows[::-1].copy(), seen(0, rows[::-1]))
    assert (who.teacher_images, who.cached_images, who.teacher_seconds) == (6, 6, spent)


def test_views_are_told_apart(tmp_path: Path) -> None:
    who, rows = guide(tmp_path / "a"), np.arange(6)
    assert not torch.equal(who.answers(0, rows, seen(0, rows)), who.answers(1, rows, seen(1, rows)))
    assert who.teacher_images == 12


def test_what_is_known_of_a_batch_stays_as_it_was(tmp_path: Path) -> None:
    who = guide(tmp_path / "a")
    assert who.cache is not None
    marker = np.full((1, 3), 7.0, np.float32)
    who.cache.put(0, np.array([2]), marker)
    rows = np.array([1, 2, 3])
    found = who.answers(0, rows, seen(0, rows))
    assert found[1].tolist() == [7.0, 7.0, 7.0]
    assert torch.equal(found[[0, 2]], torch.from_numpy(as_stored(teacher().logits(seen(0, rows)).numpy()))[[0, 2]])
    assert (who.teacher_images, who.cached_images, who.cache.known(0)) == (3, 1, 3)
    assert np.array_equal(who.cache.get(0, rows)[0], found.numpy())


def test_answers_that_are_not_numbers_are_refused_and_not_kept(tmp_path: Path) -> None:
    who, rows = guide(tmp_path / "a"), np.arange(3)
    with pytest.raises(DataError, match="the teacher's answers cannot be used"):
        who.answers(0, rows, seen(0, rows) * math.nan)
    assert who.cache is not None
    assert who.cache.known(0) == 0


@pytest.mark.parametrize("loss", ["dist", "kl", "dkd"])
def test_a_student_learns_to_answer_like_its_teacher(loss: str) -> None:
    who, rows = guide(None, loss=loss, weight=2.0), np.arange(ROWS)
    targets = torch.full((ROWS, 1), math.nan)  # None of them has a label.
    answers = who.answers(0, rows, seen(0, rows))
    student = (torch.zeros(ROWS, 3) + 0.1 * torch.eye(3).repeat(7, 1)[:ROWS]).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    before = who.loss(student, answers, targets).item()
    for _ in range(60):
        optimizer.zero_grad()
        who.loss(student, answers, targets).backward()
        optimizer.step()
    assert who.loss(student, answers, targets).item() < 0.1 * before
    half = guide(None, loss=loss, weight=1.0)
    assert half.loss(student, answers, targets).item() == pytest.approx(who.loss(student, answers, targets).item() / 2)


def test_regressions_are_answered_in_the_units_of_training(tmp_path: Path) -> None:
    heads = (Head("size", "regression", ("w", "h")), Head("kind", "single-label", ("x", "y")))
    offset, scale = torch.tensor([100.0, -2.0, 0.0, 0.0]), torch.tensor([50.0, 0.5, 1.0, 1.0])
    who = opened(tmp_path, source(4), heads=heads, offset=offset, scale=scale)
    rows = np.arange(5)
    exact = teacher(4).logits(seen(0, rows))
    torch.testing.assert_close(who.answers(0, rows, seen(0, rows)), (exact - offset) / scale, rtol=1e-3, atol=1e-4)
    images = np.zeros((9, 8, 8, 3), np.uint8)
    value = teacher(4).logits(torch.zeros(1, 3, 8, 8))[0].numpy()
    metrics = who.evaluate_teacher(images, np.tile([value[0] + 3, value[1], 0.0], (9, 1)).astype(np.float32))
    assert metrics["size: w MAE"] == pytest.approx(3.0, abs=0.1)
    assert metrics["size: h MAE"] == pytest.approx(0.0, abs=0.01)


def test_features_are_matched_through_a_projector_that_learns(tmp_path: Path) -> None:
    who = opened(tmp_path, source(), loss="features")
    assert who.on_features
    assert who.projector is not None
    rows = np.arange(6)
    answers = who.answers(1, rows, seen(1, rows))
    torch.testing.assert_close(answers, teacher().features(seen(1, rows)), rtol=1e-3, atol=1e-6)
    student = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    who.loss(student, answers, torch.full((6, 1), math.nan)).backward()
    assert student.grad is not None
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in who.projector.parameters())


def test_known_features_need_no_teacher_and_the_projector_begins_alike(tmp_path: Path) -> None:
    rows = np.arange(ROWS)
    first = opened(tmp_path, source(), loss="features")
    expected = first.answers(0, rows, seen(0, rows))
    second = opened(tmp_path, nobody(), loss="features")
    assert torch.equal(second.answers(0, rows, seen(0, rows)), expected)
    assert first.projector is not None
    assert second.projector is not None
    assert torch.equal(first.projector.weight, second.projector.weight)  # type: ignore[arg-type]
    assert second.projector.weight.shape == (6, 4)  # type: ignore[union-attr]


def test_a_teacher_without_features_is_refused_at_the_start(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    plain: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "size": (8, 8), "device": CPU}
    closed = TeacherSource(
        identity="closed", description="closed", create=lambda: NetworkTeacher(network, order=range(3), **plain)
    )
    with pytest.raises(UsageError, match="the teacher closed does not show its features"):
        opened(tmp_path, closed, loss="features")


def test_a_projector_and_its_loss_belong_together() -> None:
    for recipe, projector in ((DistillRecipe(), create_projector(4, 6, 0)), (DistillRecipe(loss="features"), None)):
        with pytest.raises(ValueError, match="projector"):
            Guide(source(), None, recipe, HEADS, CPU, projector=projector)


def test_the_teacher_is_judged_once(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3)).astype(np.uint8)
    views = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    decided = teacher().logits(views).argmax(dim=1).numpy()
    targets = decided.astype(np.float32)[:, None]
    targets[:3] = (targets[:3] + 1) % 3
    first = opened(tmp_path, source())
    assert first.evaluate_teacher(images, targets) == {"top-1 %": pytest.approx(100 * 6 / 9)}
    assert first.teacher_images == 9
    assert opened(tmp_path, nobody()).evaluate_teacher(images, targets) == {"top-1 %": pytest.approx(100 * 6 / 9)}
    # Whatever is compared while training, and whichever views: the validation images stay the same.
    assert opened(tmp_path, nobody(), draws={"seed": 1}, loss="kl").evaluate_teacher(images, targets)


@pytest.mark.parametrize(
    "change",
    [
        {"draws": {"seed": 1}},
        {"images": "others"},
        {"heads": default_heads(["b", "a", "c"])},
        {"offset": torch.ones(3)},
        {"scale": 2 * torch.ones(3)},
    ],
)
def test_other_views_have_other_answers(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = np.arange(4)
    opened(tmp_path, source()).answers(0, rows, seen(0, rows))
    other = opened(tmp_path, source(), **change)
    other.answers(0, rows, seen(0, rows))
    assert (other.teacher_images, other.cached_images) == (4, 0)


@pytest.mark.parametrize("change", [{"count": 7}, {"loss": "kl"}, {"temperature": 4.0}, {"weight": 0.5}])
def test_what_does_not_change_an_answer_keeps_it(tmp_path: Path, change: dict[str, Any]) -> None:
    rows = np.arange(4)
    expected = opened(tmp_path, source()).answers(0, rows, seen(0, rows))
    assert torch.equal(opened(tmp_path, nobody(), **change).answers(0, rows, seen(0, rows)), expected)


def test_without_a_cache_nothing_is_written(tmp_path: Path) -> None:
    who, rows = opened(tmp_path, source(), cache=False), np.arange(4)
    who.answers(0, rows, seen(0, rows))
    who.answers(0, rows, seen(0, rows))
    who.evaluate_teacher(np.zeros((9, 8, 8, 3), np.uint8), np.zeros((9, 1), np.float32))
    assert (who.teacher_images, who.cached_images) == (17, 0)
    assert list(tmp_path.iterdir()) == []
