"""A run's place on its schedule, and how a time budget ends it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from edgetune.errors import Interrupted
from edgetune.train.clock import Clock


class Time:
    """Passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def test_without_a_budget_the_clock_is_its_steps(fake: Time) -> None:
    clock = Clock(10, None)
    clock.start()
    fake.now += 1e6
    assert [clock.position(step) for step in (0, 3, 9)] == [0, 3, 9]
    assert not clock.is_over(9)
    assert clock.is_over(10)


def test_the_later_of_steps_and_time_counts(fake: Time) -> None:
    clock = Clock(10, 100.0)
    clock.start()
    fake.now += 30
    assert clock.position(2) == pytest.approx(3)  # 30 of 100 seconds are 3 of 10 steps.
    assert clock.position(5) == 5
    fake.now += 70
    assert clock.position(5) == 10
    assert clock.is_over(5)


def test_the_last_validation_is_set_aside(fake: Time) -> None:
    clock = Clock(10, 100.0)
    clock.validation_s = 20.0
    clock.start()
    fake.now += 79.9
    assert not clock.is_over(0)
    fake.now += 0.1
    assert clock.is_over(0)


def test_seconds_add_up_over_resumptions(fake: Time) -> None:
    clock = Clock(10, 100.0)
    clock.start()
    fake.now += 40
    resumed = Clock(10, 100.0)
    resumed.spent_s = clock.elapsed_s
    fake.now += 5000  # Nobody trains meanwhile.
    resumed.start()
    assert resumed.elapsed_s == 40
    fake.now += 10
    assert resumed.position(0) == pytest.approx(5)


STEPS = 9
SECONDS_A_STEP = 1.0


@pytest.fixture
def timed(dataset, model, recipe, run, tmp_path, lines, fake, monkeypatch) -> Callable[..., Any]:
    """Train where every step takes a second."""

    advance = type(lines).advance

    def slowly(self: Any, label: str, done: int, total: int, note: str = "") -> None:
        fake.now += SECONDS_A_STEP if label == "fine-tuning" else 0.0
        advance(self, label, done, total, note)

    monkeypatch.setattr(type(lines), "advance", slowly)

    def train(*, stop=lambda: False, **changes: Any) -> Any:
        settings = {"epochs": 4, "warmup_fraction": 0.1, "final_lr_fraction": 0.0, "lr": 1e-3, "average_epochs": False}
        return run(dataset, model, recipe(**settings | changes), tmp_path, lines, stop=stop)

    return train


def test_a_budget_ends_the_run_and_its_schedule_together(timed, lines) -> None:
    checkpoint = timed(time_budget_s=14.0)
    assert lines.steps == 14
    assert checkpoint.epochs == 2
    assert "the time budget of 14 s ended training after 1.6 of 4 epochs" in checkpoint.warnings
    history = checkpoint.history()
    # Half a cosine: the rate at the last step, 13 of 14 seconds, is that of 13/14 of the schedule.
    warmup, at = 0.1, 13 / 14
    expected = 1e-3 * 0.5 * (1 + math.cos(math.pi * (at - warmup) / (1 - warmup)))
    assert history[-1]["lr"] == pytest.approx(expected, rel=1e-6)
    assert history[-1]["lr"] < 0.03 * 1e-3
    assert history[1]["lr"] > history[2]["lr"]


def test_a_budget_that_is_never_reached_changes_nothing(timed, lines, tmp_path) -> None:
    checkpoint = timed(time_budget_s=1e6)
    assert lines.steps == 4 * STEPS
    assert not any("budget" in warning for warning in checkpoint.warnings)
    before = (tmp_path / "model.safetensors").read_bytes()
    timed()
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_budget_for_not_one_step_keeps_the_beginning(timed, lines) -> None:
    checkpoint = timed(time_budget_s=0.5)
    assert lines.steps == 1
    assert "ended training after 0.1 of 4 epochs" in checkpoint.warnings[-1]


def test_an_interrupted_run_keeps_its_account_of_time(timed, lines) -> None:
    with pytest.raises(Interrupted):
        timed(time_budget_s=14.0, stop=lambda: lines.steps == 10)
    checkpoint = timed(time_budget_s=14.0)
    assert lines.steps == 14
    assert "ended training after 1.6 of 4 epochs" in checkpoint.warnings[-1]
