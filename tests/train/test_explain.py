"""Warnings about a training: those that it deserves, and none for healthy ones."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from edgetune.train.explain import explain_history

Line = dict[str, Any]


def history(
    train: Sequence[float], val: Sequence[float], score: Sequence[float], *, metrics: Sequence[str] = ("top-1 %",)
) -> list[Line]:
    """A history from epoch 0 on, which has no train loss."""
    return [
        {"epoch": epoch, "train_loss": a, "val_loss": b, "val_score": c, "val_metrics": dict.fromkeys(metrics, c), "lr": 1e-3}
        for epoch, (a, b, c) in enumerate(zip([None, *train], val, score, strict=True))
    ]


# Measured: emoji9 at 96 px over 5 and 8 epochs, and digits over 10, all with label smoothing.
EMOJI = history(
    [1.025, 0.839, 0.659, 0.560, 0.533], [0.786, 0.732, 0.632, 0.641, 0.624, 0.623], [77.9, 78.3, 81.0, 80.8, 81.1, 81.7]
)
EMOJI_LONGER = history(
    [0.973, 0.899, 0.733, 0.626, 0.558, 0.520, 0.509, 0.509],
    [0.786, 0.659, 0.606, 0.604, 0.615, 0.615, 0.610, 0.611, 0.606],
    [77.86, 78.98, 82.23, 83.22, 81.38, 81.66, 82.51, 81.81, 81.95],
)
EMOJI_OF_README = history(
    [0.90, 0.80, 0.70, 0.63, 0.60], [0.75, 0.73, 0.71, 0.70, 0.70, 0.70], [77.0, 78.0, 79.5, 80.0, 80.2, 80.3]
)
DIGITS = history(
    [1.106, 0.759, 0.643, 0.566, 0.541, 0.538, 0.525, 0.523, 0.520, 0.520],
    [0.294, 0.248, 0.149, 0.136, 0.139, 0.124, 0.114, 0.116, 0.106, 0.119, 0.118],
    [94.97, 94.41, 96.09, 98.88, 97.77, 99.44, 98.88, 99.44, 99.44, 99.44, 99.44],
)
SHORT = history([1.748, 0.766], [0.294, 0.588, 0.219], [94.97, 85.47, 93.85])
PROBE_ALONE = history([], [0.786], [77.9])
LOSS_BUT_ONE_SPIKE = history(
    [1.0, 0.8, 0.7, 0.6, 0.55, 0.52, 0.5],
    [0.9, 0.80, 0.70, 0.65, 0.66, 0.65, 0.66, 1.40],
    [60.0, 70.0, 75.0, 78.0, 78.0, 78.5, 78.0, 71.0],
)


@pytest.mark.parametrize(
    "lines",
    [EMOJI, EMOJI_LONGER, EMOJI_OF_README, DIGITS, SHORT, PROBE_ALONE, LOSS_BUT_ONE_SPIKE],
    ids=["emoji", "emoji-longer", "readme", "digits", "short", "probe-alone", "one-spike"],
)
def test_a_healthy_training_is_not_warned_of(lines: list[Line]) -> None:
    assert explain_history(lines, chance=15.0, images=700) == ()


@pytest.mark.parametrize("epochs", [3, 5, 10, 30, 100])
def test_the_noise_of_healthy_trainings_is_hardly_ever_an_alarm(epochs: int) -> None:
    """Losses that settle, with a wobble of 5 % of their own, as a small validation set gives them."""
    generator = random.Random(epochs)
    alarms = 0
    for _ in range(200):
        fall = [math.exp(-4 * epoch / epochs) for epoch in range(epochs + 1)]
        train = [0.5 + 0.6 * part for part in fall[1:]]
        val = [(0.6 + 0.3 * part) * (1 + generator.gauss(0, 0.05)) for part in fall]
        score = [80 - 10 * part + generator.gauss(0, 1) for part in fall]
        alarms += bool(explain_history(history(train, val, score), chance=15.0, images=700))
    assert alarms <= 1


def test_an_empty_history_says_nothing() -> None:
    assert explain_history([], chance=50.0) == ()


def test_overfitting_is_named_with_its_epoch_and_what_to_try() -> None:
    lines = history(
        [1.0, 0.6, 0.3, 0.15, 0.08, 0.04, 0.02],
        [0.9, 0.70, 0.60, 0.64, 0.72, 0.81, 0.90, 0.99],
        [60, 72, 78, 77, 76, 76, 75, 75],
    )
    (warning,) = explain_history(lines, chance=15.0)
    assert "overfitting after epoch 2: " in warning
    assert "train loss fell on from 0.600 to 0.020" in warning
    assert "validation loss rose from 0.600 to 0.990" in warning
    assert "train.epochs = 2" in warning
    assert "train.augment" in warning


def test_overfitting_of_the_probabilities_alone_gets_another_remedy() -> None:
    lines = history(
        [1.0, 0.6, 0.3, 0.15, 0.08, 0.04, 0.02],
        [0.9, 0.70, 0.60, 0.64, 0.72, 0.81, 0.90, 0.99],
        [60, 72, 78, 79, 80, 80, 81, 81],
    )
    (warning,) = explain_history(lines, chance=15.0)
    assert "score still rose from 78.00 to 81.00" in warning
    assert "train.label_smoothing" in warning


def test_noisy_overfitting_is_seen() -> None:
    generator = random.Random(0)
    train = [1.2 * math.exp(-epoch / 8) for epoch in range(1, 41)]
    val = [(0.6 + 0.02 * abs(epoch - 10)) * (1 + generator.gauss(0, 0.03)) for epoch in range(41)]
    (warning,) = explain_history(history(train, val, [70.0] * 41), chance=15.0)
    epoch = int(warning.split("after epoch ")[1].split(":")[0])
    assert 7 <= epoch <= 13


def test_a_rising_loss_of_both_sets_is_not_overfitting() -> None:
    lines = history([0.6, 0.5, 0.6, 0.7, 0.8, 0.9], [0.8, 0.7, 0.6, 0.7, 0.8, 0.9, 1.0], [60, 65, 70, 68, 66, 64, 62])
    assert explain_history(lines, chance=15.0) == ()


def test_losses_that_still_fall_ask_for_more_epochs() -> None:
    lines = history([2.2, 1.8, 1.4, 1.0], [2.3, 2.1, 1.7, 1.3, 0.95], [10, 25, 40, 55, 66])
    (warning,) = explain_history(lines, chance=10.0, images=500)
    assert "train loss still fell from 1.400 to 1.000" in warning
    assert "validation loss from 1.300 to 0.950" in warning
    assert "more epochs than 4" in warning


def test_the_last_thousandths_do_not_ask_for_more_epochs() -> None:
    losses = [0.6**epoch for epoch in range(9)]
    lines = history(losses[1:], losses, [60, 90, 97, 98, 99, 99.2, 99.4, 99.6, 99.8])
    assert explain_history(lines, chance=10.0, images=500) == ()


def test_a_train_loss_that_falls_without_the_validation_is_not_called_too_early() -> None:
    lines = history([2.2, 1.8, 1.4, 1.0], [2.3, 2.1, 1.7, 1.6, 1.58], [10, 25, 40, 45, 45])
    assert explain_history(lines, chance=10.0, images=500) == ()


@pytest.mark.parametrize("score", [20.0, 33.3])
def test_no_better_than_one_class_every_time(score: float) -> None:
    lines = history([1.1, 1.1, 1.09], [1.1] * 4, [score] * 4)
    (warning,) = explain_history(lines, chance=33.3)
    assert warning.startswith(
        "the network learned nothing: it does no better on the validation set than naming one class every time (33.3 %)"
    )
    assert "edgetune lr-find" in warning


def test_what_chance_can_give_depends_on_how_many_images_there_are() -> None:
    lines = history([1.1, 1.1, 1.09], [1.1] * 4, [33.0, 34.0, 37.0, 36.0])
    (warning,) = explain_history(lines, chance=33.3, images=300)
    assert "on 300 validation images, 37.0 % cannot be told from naming one class every time (33.3 %)" in warning
    assert explain_history(lines, chance=33.3, images=3000) == ()
    assert explain_history(lines, chance=33.3) == ()


def test_images_learnt_by_heart_and_nothing_else() -> None:
    lines = history([1.1, 0.6, 0.2], [1.1, 1.4, 1.9, 2.4], [33.0, 30.0, 33.0, 31.0])
    (warning,) = explain_history(lines, chance=33.3)
    assert "the train loss fell from 1.100 to 0.200" in warning
    assert "labels" in warning


def test_a_regression_that_predicts_the_mean() -> None:
    lines = history([1.0, 1.0], [1.0, 1.0, 1.01], [-3.0, -1.0, -2.0], metrics=["MAE", "RMSE", "R²"])
    (warning,) = explain_history(lines, chance=0.0, images=50)
    assert "predicting the mean every time (a score of 0.0)" in warning
    good = history([1.0, 0.5], [1.0, 0.5, 0.4], [10.0, 50.0, 60.0], metrics=["MAE", "RMSE", "R²"])
    assert explain_history(good, chance=0.0, images=50) == ()


def test_epochs_that_were_not_judged_are_left_out() -> None:
    lines = [*EMOJI, {"epoch": 6, "train_loss": 0.5, "val_loss": math.nan, "val_score": 80.0}, {"epoch": 7, "lr": 1e-3}]
    assert explain_history(lines, chance=15.0, images=700) == ()
