"""The learning-rate range test: where a known curve falls the fastest, and that nothing but the curve is left."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edgetune.errors import Interrupted, UsageError
from edgetune.train.job import TrainJob
from edgetune.train.lrfind import BURST, LARGEST, SMALLEST, find_lr, suggest


def rates(count: int) -> list[float]:
    return np.geomspace(SMALLEST, LARGEST, count).tolist()


@pytest.mark.parametrize("middle", [1e-4, 1e-3, 1e-2])
def test_the_suggestion_is_where_the_loss_falls_the_fastest(middle) -> None:
    """A step of one tenfold around some rate, then the burst."""
    lrs = rates(100)
    losses = [2 - 1 / (1 + math.exp(-4 * math.log10(lr / middle))) + max(0, math.log10(lr / middle) - 2) ** 2 for lr in lrs]
    found = suggest(lrs, losses)
    assert found is not None
    assert abs(math.log10(found / middle)) < 0.1


def test_the_noise_of_single_steps_does_not_decide() -> None:
    lrs = rates(100)
    random = np.random.default_rng(0)
    losses = [2 - 1 / (1 + math.exp(-4 * math.log10(lr / 1e-3))) + 0.03 * random.normal() for lr in lrs]
    found = suggest(lrs, losses)
    assert found is not None
    assert abs(math.log10(found / 1e-3)) < 0.4


@pytest.mark.parametrize("losses", [[], [1.0], [1.0] * 50, list(range(50)), [1.0, 2.0]])
def test_a_loss_that_never_falls_suggests_nothing(losses) -> None:
    assert suggest(rates(len(losses)), losses) is None


def test_a_short_fall_before_a_burst_is_found() -> None:
    """The fall lasts three of sixty steps, less than what slopes are taken over."""
    losses = [1.0] * 40 + [0.9, 0.7, 0.5] + [2.0] * 17
    found = suggest(rates(60), losses)
    assert found is not None
    assert rates(60)[35] < found < rates(60)[43]


@pytest.fixture
def job(dataset, model, recipe, tmp_path) -> TrainJob:
    return TrainJob(dataset=dataset, model=model, recipe=recipe(), seed=0, key="k", folder=tmp_path)


def test_rates_climb_until_the_loss_bursts(job, lines, tmp_path) -> None:
    curve = find_lr(job, 40, lines)
    assert curve.lrs[0] == pytest.approx(SMALLEST)
    steps = np.diff(np.log(curve.lrs))
    assert steps == pytest.approx([math.log(LARGEST / SMALLEST) / 39] * len(steps))
    assert len(curve.losses) == len(curve.lrs) <= 40
    assert all(loss <= BURST * min(curve.losses[: i + 1]) + 1e-9 for i, loss in enumerate(curve.losses) if i > 4)
    assert curve.suggestion is not None
    assert 1e-5 < curve.suggestion < 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["curve.json"]
    assert json.loads((tmp_path / "curve.json").read_text()) == {"lrs": list(curve.lrs), "losses": list(curve.losses)}


def test_it_can_be_interrupted(job, lines, tmp_path) -> None:
    with pytest.raises(Interrupted, match="range test"):
        find_lr(job, 40, lines, stop=lambda: True)
    assert not list(tmp_path.iterdir())


def test_one_process_does_it(job, lines, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="in one process"):
        find_lr(job, 40, lines)
