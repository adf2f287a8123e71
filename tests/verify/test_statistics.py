from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from edgetune.verify.statistics import (
    drop_chance,
    hodges_lehmann,
    images_needed,
    paired_drop,
    percentile,
    tango_interval,
    tango_z,
    unpaired_drop,
    wilson_interval,
)


@st.composite
def paired_counts(draw):
    images = draw(st.integers(2, 3000))
    lost = draw(st.integers(0, images))
    gained = draw(st.integers(0, images - lost))
    return lost, gained, images


drops = st.floats(-0.95, 0.95)


def numeric_z(lost: int, gained: int, images: int, drop: float) -> float:
    """Tango's statistic with the nuisance found by maximising the likelihood itself, not by the formula."""

    def surprise(q: float) -> float:
        terms = ((lost, q + drop), (gained, q), (images - lost - gained, 1 - 2 * q - drop))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    bounds = (max(0.0, -drop), (1 - drop) / 2)
    q = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    return (lost - gained - images * drop) / math.sqrt(images * (2 * q + drop * (1 - drop)))


@given(paired_counts(), drops)
def test_tango_z_is_the_statistic_at_the_restricted_maximum_of_the_likelihood(counts, drop):
    assume(abs(drop) > 1e-3)
    lost, gained, images = counts
    assert tango_z(*counts, drop) == pytest.approx(numeric_z(lost, gained, images, drop), rel=1e-3, abs=1e-3)


@given(paired_counts(), drops)
def test_tango_z_changes_sign_when_the_models_change_places(counts, drop):
    lost, gained, images = counts
    assert tango_z(lost, gained, images, drop) == pytest.approx(-tango_z(gained, lost, images, -drop), rel=1e-6, abs=1e-6)


@given(paired_counts(), drops, drops)
def test_tango_z_falls_as_the_hypothesis_rises(counts, first, second):
    low, high = sorted((first, second))
    assert tango_z(*counts, low) >= tango_z(*counts, high) - 1e-9


@given(paired_counts())
def test_the_interval_holds_the_estimate_and_is_mirrored_when_the_models_change_places(counts):
    lost, gained, images = counts
    low, high = tango_interval(lost, gained, images)
    assert -1 <= low <= (lost - gained) / images <= high <= 1
    mirrored = tango_interval(gained, lost, images)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-9)


@given(paired_counts(), st.floats(0.002, 0.5))
def test_the_verdict_is_what_the_interval_says(counts, tolerance):
    result = paired_drop(*counts, tolerance)
    if result.verdict == "KEPT":
        assert result.high_points <= 100 * tolerance + 1e-6
    if result.verdict == "BROKEN":
        assert result.low_points >= 100 * tolerance - 1e-6
    assert bool(result.reason) == (result.verdict != "KEPT")


@given(paired_counts(), st.floats(0.002, 0.5), st.floats(0.002, 0.5))
def test_a_larger_tolerance_is_never_judged_harder(counts, first, second):
    order = ["BROKEN", "INCONCLUSIVE", "KEPT"]
    low, high = sorted((first, second))
    assert order.index(paired_drop(*counts, low).verdict) <= order.index(paired_drop(*counts, high).verdict)


@pytest.mark.parametrize(
    ("lost", "gained", "images", "verdict"),
    [
        (0, 0, 1558, "KEPT"),
        (8, 11, 1558, "KEPT"),
        (20, 16, 1558, "KEPT"),
        (30, 20, 1558, "INCONCLUSIVE"),
        (120, 20, 1558, "BROKEN"),
        (0, 0, 299, "KEPT"),
        (0, 0, 298, "INCONCLUSIVE"),
        (1, 0, 360, "INCONCLUSIVE"),
        # The score test alone would call the first of these broken; the exact tail 1 - 0.99^20 = 0.18 does not.
        (1, 0, 20, "INCONCLUSIVE"),
        (3, 0, 20, "BROKEN"),
    ],
)
def test_verdicts_at_one_point(lost, gained, images, verdict):
    assert paired_drop(lost, gained, images, 0.01).verdict == verdict


def test_too_few_images_are_told_how_many_would_do():
    result = paired_drop(0, 0, 298, 0.01)
    assert "298 test images" in result.reason
    assert "299" in result.reason


@given(st.floats(0.001, 0.9))
def test_images_needed_is_the_least_number_that_makes_no_loss_surprising(tolerance):
    needed = images_needed(tolerance)
    assert (1 - tolerance) ** needed <= 0.05 * (1 + 1e-9)
    assert (1 - tolerance) ** (needed - 1) > 0.05 * (1 - 1e-9)


def test_any_drop_is_allowed_where_all_of_it_is():
    assert images_needed(1.0) == 1
    assert paired_drop(5, 0, 10, 1.0).verdict == "KEPT"


@pytest.mark.parametrize("counts", [(-1, 0, 10), (6, 5, 10), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="got"):
        tango_z(*counts, 0.01)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_hodges_lehmann_lies_between_its_bounds_and_mirrors(differences):
    shift = hodges_lehmann(differences)
    assert shift.low <= shift.estimate <= shift.high
    mirrored = hodges_lehmann([-d for d in differences])
    assert mirrored.estimate == pytest.approx(-shift.estimate, abs=1e-12)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-shift.high), pytest.approx(-shift.low))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=10), st.floats(-3, 3))
def test_hodges_lehmann_moves_with_the_data(differences, step):
    moved = hodges_lehmann([d + step for d in differences])
    assert moved.estimate == pytest.approx(hodges_lehmann(differences).estimate + step, abs=1e-9)


@pytest.mark.parametrize("pairs", [5, 6, 10])
def test_the_bounds_are_the_exact_inversion_of_the_signed_rank_test(pairs):
    # Distinct powers of a transcendental: no ties among the pairwise means.
    differences = [math.pi**k / 7 * (-1) ** k for k in range(pairs)]
    shift = hodges_lehmann(differences)
    sums = [sum(rank for rank, sign in enumerate(signs, 1) if sign) for signs in itertools.product((0, 1), repeat=pairs)]

    def one_sided_p(hypothesis: float) -> float:
        ordered = sorted((d - hypothesis for d in differences), key=abs)
        observed = sum(rank for rank, d in enumerate(ordered, 1) if d > 0)
        return sum(total >= observed for total in sums) / len(sums)

    assert one_sided_p(shift.low - 1e-9) <= 0.05 < one_sided_p(shift.low + 1e-9)


@pytest.mark.parametrize("pairs", [1, 4])
def test_too_few_pairs_give_no_bounds(pairs):
    shift = hodges_lehmann([0.1 * k for k in range(pairs)])
    assert (shift.low, shift.high) == (-math.inf, math.inf)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=200), st.integers(1, 100))
def test_a_percentile_is_a_sample_that_enough_samples_do_not_exceed(samples, percent):
    value = percentile(samples, percent)
    assert value in samples
    assert 100 * sum(s <= value for s in samples) >= percent * len(samples)
    assert 100 * sum(s < value for s in samples) < percent * len(samples)


def test_percentiles_of_nothing_are_refused():
    with pytest.raises(ValueError, match="0 samples"):
        percentile([], 90)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts):
    expected = binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert wilson_interval(*counts, z=1.959963984540054) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_chance_of_a_drop_is_the_one_that_the_verdict_rests_on():
    # Few discordant images: the exact tail of the binomial distribution, where it is the larger one.
    exact = binomtest(2, 100, 0.01, alternative="greater").pvalue
    assert drop_chance(2, 0, 100, 0.01) == pytest.approx(exact)
    for lost, gained in ((4, 0), (3, 0), (40, 10), (25, 12)):
        broken = paired_drop(lost, gained, 1000, 0.01).verdict == "BROKEN"
        assert (drop_chance(lost, gained, 1000, 0.01) < 0.05) == broken


def test_unpaired_proportions_as_newcombe_published_them():
    # Newcombe 1998, table II: 56/70 - 48/80, method 10: 0.0524 to 0.3339 at 95 % two-sided.
    drop, low, high = unpaired_drop((56, 70), (48, 80), z=1.959964)
    assert (drop, low, high) == (pytest.approx(0.2), pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
