"""Where each schedule begins and ends, that it only falls after the warm-up, and that it never jumps but where it says so."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.recipe import TrainRecipe
from edgetune.train.schedule import CYCLE_MOMENTUM, CYCLE_START, auto_warmup, cycled_momentum, lr_factor

NAMES = ("cosine", "exponential", "step", "one-cycle", "constant")
TOTAL = 1000


def recipe(name: str, **changes: object) -> TrainRecipe:
    return TrainRecipe.model_validate({"schedule": name, "warmup_fraction": 0.1, "final_lr_fraction": 0.02} | changes)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("cosine", 1 / 101, 0.02),
        ("exponential", 1 / 101, 0.02),
        ("step", 1 / 101, 0.01),
        ("one-cycle", CYCLE_START, 0.02),
        ("constant", 1 / 101, 1.0),
    ],
)
def test_begins_and_ends_where_it_should(name: str, first: float, last: float) -> None:
    chosen = recipe(name)
    assert lr_factor(0, TOTAL, chosen) == pytest.approx(first)
    assert lr_factor(100, TOTAL, chosen) == pytest.approx(1.0)
    assert lr_factor(TOTAL, TOTAL, chosen) == pytest.approx(last)


def test_values_in_the_middle_by_hand() -> None:
    plain = {"warmup_fraction": 0.0}
    assert lr_factor(500, TOTAL, recipe("cosine", **plain)) == pytest.approx(0.51)
    assert lr_factor(500, TOTAL, recipe("exponential", **plain)) == pytest.approx(math.sqrt(0.02))
    assert lr_factor(50, TOTAL, recipe("one-cycle")) == pytest.approx((1 + CYCLE_START) / 2)
    # To nothing at all an exponential would never come.
    assert lr_factor(TOTAL, TOTAL, recipe("exponential", final_lr_fraction=0.0)) == pytest.approx(1e-4)


def test_steps_fall_where_and_by_what_the_recipe_says() -> None:
    chosen = recipe("step", decay_at=(0.3, 0.6, 0.9), decay_factor=0.5)
    at = {299: 1.0, 300: 0.5, 599: 0.5, 600: 0.25, 900: 0.125, 999: 0.125}
    assert {step: lr_factor(step, TOTAL, chosen) for step in at} == pytest.approx(at)


@given(
    name=st.sampled_from(NAMES),
    total=st.integers(1, 400),
    warmup=st.floats(0, 0.9),
    final=st.floats(0, 1),
)
def test_rises_over_the_warmup_then_only_falls(name: str, total: int, warmup: float, final: float) -> None:
    chosen = recipe(name, warmup_fraction=warmup, final_lr_fraction=final, decay_at=(0.95,))
    factors = [lr_factor(step, total, chosen) for step in range(total + 1)]
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)
    warm = math.ceil(warmup * total)
    rising, falling = factors[:warm], factors[warm:]
    assert rising == sorted(rising)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(falling))


@given(name=st.sampled_from([name for name in NAMES if name != "step"]), warmup=st.floats(0.01, 0.9))
def test_is_continuous_at_the_end_of_the_warmup(name: str, warmup: float) -> None:
    chosen = recipe(name, warmup_fraction=warmup)
    at = warmup * 100_000
    before, after = lr_factor(at - 1e-6, 100_000, chosen), lr_factor(at + 1e-6, 100_000, chosen)
    assert before == pytest.approx(after, abs=1e-4)
    assert after == pytest.approx(1.0, abs=1e-4)


def test_the_momentum_of_one_cycle_moves_against_the_rate() -> None:
    low, high = CYCLE_MOMENTUM
    chosen = recipe("one-cycle")
    momenta = [cycled_momentum(step, TOTAL, chosen) for step in range(TOTAL + 1)]
    factors = [lr_factor(step, TOTAL, chosen) for step in range(TOTAL + 1)]
    assert (momenta[0], momenta[100], momenta[TOTAL]) == pytest.approx((high, low, high))
    for step in range(TOTAL):
        rate, momentum = factors[step + 1] - factors[step], momenta[step + 1] - momenta[step]  # type: ignore[operator]
        assert rate * momentum <= 0, step


@pytest.mark.parametrize("name", [name for name in NAMES if name != "one-cycle"])
def test_other_schedules_leave_the_momentum_alone(name: str) -> None:
    assert cycled_momentum(3, 10, recipe(name)) is None


@pytest.mark.parametrize(("steps", "part"), [(0, 0.3), (10, 0.3), (133, 0.3), (200, 0.2), (400, 0.1), (410, 0.1), (10**6, 0.1)])
def test_short_regressions_warm_up_for_longer(steps: int, part: float) -> None:
    assert auto_warmup(steps, regression=True) == pytest.approx(part, abs=0.001)
    assert auto_warmup(steps, regression=False) == 0.1
