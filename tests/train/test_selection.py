"""Which weights a run keeps: how sure one must be that an earlier epoch was better."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.device.heads import Head
from edgetune.train.scores import score_heads
from edgetune.train.selection import Candidate, chosen, is_clearly_better
from edgetune.train.start import load_network

CLASSES = (Head(name="class", kind="single-label", columns=("a", "b")),)


def answers(right: np.ndarray) -> np.ndarray:
    """Logits of two classes that are right where they are told to be; class 0 is the truth."""
    return np.stack([right, ~right], axis=1).astype(np.float32)


def truth(images: int) -> np.ndarray:
    return np.zeros((images, 1), np.float32)


def candidate(right: np.ndarray, loss: float, epoch: int, averaged: int = 0) -> Candidate:
    scores = score_heads(CLASSES, answers(right), truth(len(right)), loss)
    return Candidate(state={}, epoch=epoch, averaged=averaged, outputs=answers(right), scores=scores)


# z of 40 paired answers, by hand: d / sqrt((m - d²) / 39), d the difference and m the share of unlike ones: 2.62, 2.36, 2.08,
# 1.67 and, the other way round, below 0.
@pytest.mark.parametrize(("gained", "lost", "clear"), [(6, 0, True), (5, 0, True), (4, 0, False), (5, 1, False), (0, 6, False)])
def test_of_few_images_it_is_the_z_of_paired_proportions(gained, lost, clear) -> None:
    ours, theirs = np.ones(40, bool), np.ones(40, bool)
    theirs[:gained] = False
    ours[gained : gained + lost] = False
    assert is_clearly_better(answers(ours), answers(theirs), truth(40), CLASSES) == clear


@pytest.mark.parametrize("images", [60, 700])
def test_chance_is_seldom_taken_for_better_and_better_is_found(images) -> None:
    random = np.random.default_rng(4)

    def share(ours: float, theirs: float) -> float:
        pairs = [(random.random(images) < ours, random.random(images) < theirs) for _ in range(200)]
        return float(np.mean([is_clearly_better(answers(a), answers(b), truth(images), CLASSES) for a, b in pairs]))

    # One in a hundred is meant, six of 200 are as many as chance makes of that.
    assert share(0.8, 0.8) <= 0.03
    assert share(0.95, 0.65) > 0.9


@pytest.mark.parametrize("kind", ["multi-label", "regression"])
def test_it_serves_every_score(kind) -> None:
    heads = (Head(name="task", kind=kind, columns=("p", "q")),)
    random = np.random.default_rng(0)
    known = random.random((300, 2)).astype(np.float32)
    targets = (known > 0.5).astype(np.float32) if kind == "multi-label" else known
    targets[:20, 0] = np.nan
    good, bad, like = (known + spread * random.normal(size=known.shape).astype(np.float32) for spread in (0.1, 0.4, 0.1))
    assert is_clearly_better(good, bad, targets, heads)
    assert not is_clearly_better(bad, good, targets, heads)
    assert not is_clearly_better(good, like, targets, heads)
    assert not is_clearly_better(like, good, targets, heads)


def test_a_lucky_epoch_is_not_kept_and_a_better_one_is() -> None:
    right = np.arange(100) >= 20
    last, lucky = candidate(right, 0.5, 9), candidate(np.arange(100) >= 19, 0.4, 4)
    kept, reasons = chosen(lucky, last, None, truth(100), CLASSES)
    assert kept is last
    assert reasons == ["epoch 4 validated better than epoch 9 by no more than chance explains: epoch 9 is kept"]
    better = candidate(np.arange(100) >= 5, 0.4, 4)
    kept, reasons = chosen(better, last, None, truth(100), CLASSES)
    assert kept is better
    assert reasons == ["epoch 4 validated better than epoch 9 by more than chance explains, and is kept"]
    assert chosen(last, last, None, truth(100), CLASSES) == (last, [])


def test_the_mean_is_kept_by_its_loss_unless_it_is_clearly_worse() -> None:
    last = candidate(np.arange(100) >= 20, 0.5, 9)
    for loss, right, averaged in ((0.4, 21, 4), (0.6, 18, 0), (0.4, 50, 0)):
        mean = candidate(np.arange(100) >= right, loss, 9, 4)
        kept, reasons = chosen(last, last, mean, truth(100), CLASSES)
        assert kept.averaged == averaged
        assert reasons[0].startswith(f"mean of the last 4 epochs: validation loss {loss:.3f}, validation top-1 ")
        assert reasons[0].endswith("(kept)" if loss < 0.5 else "(not better than epoch 9)")


def test_without_images_nothing_is_clearly_better() -> None:
    assert not is_clearly_better(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), truth(0), CLASSES)


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_run_that_came_apart_goes_back_to_its_best_epoch(dataset, recipe, tuned, teacher, lines, epoch) -> None:
    tuning = tuned(dataset, recipe(epochs=4, patience=2))
    tuning.begin()
    tuning.best, tuning.best_epoch = load_network(teacher).state_dict(), 1
    tuning.epoch = epoch
    tuning._choose(lines)
    assert (tuning.best_epoch, tuning.averaged_epochs) == (1, 0)
    assert tuning.final == teacher.val_metrics
    # Out of patience, there is nothing to choose.
    assert ("more than chance explains, and is kept" in lines.text) == (epoch == 4)


def test_of_equal_epochs_the_last_is_kept(dataset, recipe, tuned, teacher, lines) -> None:
    tuning = tuned(dataset, recipe(epochs=4), network=load_network(teacher))
    tuning.begin()
    tuning.epoch = 4
    tuning._choose(lines)
    assert (tuning.best_epoch, tuning.final) == (4, teacher.val_metrics)
