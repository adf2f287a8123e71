"""The tests behind the verdicts: paired accuracy, paired latency, and intervals. Standard library only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "PairedDrop",
    "Shift",
    "drop_chance",
    "hodges_lehmann",
    "images_needed",
    "paired_drop",
    "percentile",
    "tango_interval",
    "tango_z",
    "unpaired_drop",
    "wilson_interval",
]

CRITICAL_Z = 1.645
"""The 95 % point of the normal distribution: each side of a test errs at most once in twenty."""
POWER_Z = 0.842
"""The 80 % point: the chance that a test sees what it is said to be able to see."""
FEW_DISCORDANT = 10
"""Below so many changed decisions the normal approximation alone must not call a model broken."""


@dataclass(frozen=True, kw_only=True)
class PairedDrop:
    """How much less accurate a candidate is than its baseline on the same images.

    Attributes:
        verdict: KEPT, BROKEN or INCONCLUSIVE.
        reason: why, where it is not KEPT; else empty.
        images: the number of images.
        lost: images that only the baseline has right.
        gained: images that only the candidate has right.
        drop_points: the estimate: top-1 of the baseline less that of the candidate, in points.
        low_points: lower end of the 90 % score interval of the drop.
        high_points: its upper end; a tolerance above it would have been KEPT.
        z: Tango's statistic at the tolerance.
        smallest_drop_points: the smallest tolerance that so many images confirm four times out of five when there is no drop.
    """

    verdict: Literal["KEPT", "BROKEN", "INCONCLUSIVE"]
    reason: str
    images: int
    lost: int
    gained: int
    drop_points: float
    low_points: float
    high_points: float
    z: float
    smallest_drop_points: float


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A Hodges-Lehmann estimate with its exact one-sided 95 % bounds; a bound is infinite where too few pairs give none."""

    estimate: float
    low: float
    high: float
    pairs: int


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that at least `percent` of the samples do not exceed (nearest rank, no interpolation).

    Raises:
        ValueError: no samples, or `percent` outside (0, 100].
    """
    if not samples or not 0 < percent <= 100:
        raise ValueError(f"a percentile needs samples and 0 < percent <= 100; got {len(samples)} samples, {percent} %")
    # The product before the division: 0.07 * 100 would be 7.000000000000001 and take the eighth of 100 samples.
    return sorted(samples)[math.ceil(percent * len(samples) / 100) - 1]


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, 95 % unless `z` says otherwise (Wilson 1927).

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"got {successes} successes in {trials} trials")
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At 0 and at all successes one end is exact; rounding must not push it inside.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, (1.0 if successes == trials else min(1.0, centre + half))


def images_needed(tolerance: float) -> int:
    """Return how many images must agree before a drop of `tolerance` (a proportion) is unlikely: ⌈ln 0.05 / ln(1 - δ)⌉."""
    return 1 if tolerance >= 1 else math.ceil(math.log(0.05) / math.log1p(-tolerance))


def tango_z(lost: int, gained: int, images: int, drop: float) -> float:
    """Return the score statistic of "the true drop is `drop`" for paired proportions (Tango 1998, Statistics in Medicine 17).

    Negative: the data show a smaller drop; positive: a larger one. With b = lost, c = gained, N images and δ = drop, the
    probability q of a gain that is most likely under that hypothesis solves 2N q² + B q + C = 0 with
    B = (2N - b + c)δ - (b + c) and C = -cδ(1 - δ); then z = (b - c - Nδ) / √(N (2q + δ(1 - δ))).

    Args:
        lost: images that only the baseline has right.
        gained: images that only the candidate has right.
        images: all images.
        drop: the hypothesis, a proportion in (-1, 1).

    Raises:
        ValueError: counts that cannot be, or a drop outside (-1, 1).
    """
    if images < 1 or min(lost, gained) < 0 or lost + gained > images or not -1 < drop < 1:
        raise ValueError(f"got {lost} lost and {gained} gained of {images} images, drop {drop}")
    if drop < 0:
        return -tango_z(gained, lost, images, -drop)
    a = 2 * images
    b = (2 * images - lost + gained) * drop - (lost + gained)
    c = -gained * drop * (1 - drop)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    # The larger root, in the form that does not subtract two nearly equal numbers.
    q = (root - b) / (2 * a) if b <= 0 else -2 * c / (root + b)
    variance = images * (2 * q + drop * (1 - drop))
    excess = lost - gained - images * drop
    if variance <= 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def tango_interval(lost: int, gained: int, images: int, z: float = CRITICAL_Z) -> tuple[float, float]:
    """Return the drops (proportions) that Tango's test does not reject: 90 % two-sided unless `z` says otherwise.

    The statistic falls as the drop rises, so each end is found by bisection between the estimate and ±1.
    """
    estimate = (lost - gained) / images
    return _where_z_is(z, lost, gained, images, estimate, -1.0), _where_z_is(-z, lost, gained, images, estimate, 1.0)


def _where_z_is(level: float, lost: int, gained: int, images: int, inside: float, outside: float) -> float:
    """Return the drop between `inside` (not rejected) and `outside` where the statistic reaches `level`."""
    for _ in range(60):
        middle = (inside + outside) / 2
        if abs(middle) >= 1:
            return outside
        if abs(tango_z(lost, gained, images, middle)) < abs(level):
            inside = middle
        else:
            outside = middle
    return outside


def paired_drop(lost: int, gained: int, images: int, tolerance: float) -> PairedDrop:
    """Judge whether a candidate is less accurate than its baseline by no more than a tolerance.

    KEPT and BROKEN each err at most once in twenty. KEPT needs at least `images_needed` images; BROKEN on fewer than ten
    changed decisions also needs the exact binomial tail to agree.

    Args:
        lost: images that only the baseline has right.
        gained: images that only the candidate has right.
        images: all images.
        tolerance: the allowed drop of top-1, a proportion in (0, 1].

    Raises:
        ValueError: counts that cannot be.
    """
    tolerance = min(tolerance, 1 - 1e-9)
    z = tango_z(lost, gained, images, tolerance)
    low, high = tango_interval(lost, gained, images)
    needed = images_needed(tolerance)
    verdict: Literal["KEPT", "BROKEN", "INCONCLUSIVE"] = "INCONCLUSIVE"
    reason = "the images cannot tell a drop within the tolerance from one beyond it"
    if z < -CRITICAL_Z and images >= needed:
        verdict, reason = "KEPT", ""
    elif z < -CRITICAL_Z:
        reason = f"{images} test images cannot confirm so small a tolerance; {needed} are the least"
    elif z > CRITICAL_Z and _certainly_worse(lost, gained, images, tolerance):
        verdict, reason = "BROKEN", "the drop is larger than the tolerance, beyond what chance explains"
    discordance = (lost + gained) / images
    return PairedDrop(
        verdict=verdict,
        reason=reason,
        images=images,
        lost=lost,
        gained=gained,
        drop_points=100 * (lost - gained) / images,
        low_points=100 * low,
        high_points=100 * high,
        z=z,
        smallest_drop_points=100 * max(_visible_drop(discordance, images), 1 - 0.05 ** (1 / images)),
    )


def _visible_drop(discordance: float, images: int) -> float:
    """Return the tolerance that is confirmed with 80 % power at no true drop: √((1.645 + 0.842)² π / N)."""
    return (CRITICAL_Z + POWER_Z) * math.sqrt(discordance / images)


def _certainly_worse(lost: int, gained: int, images: int, tolerance: float) -> bool:
    return lost + gained >= FEW_DISCORDANT or _exact_chance(lost, gained, images, tolerance) < 0.05


def _exact_chance(lost: int, gained: int, images: int, tolerance: float) -> float:
    """Return P(X ≥ lost - gained) of the binomial distribution of `images` trials of probability `tolerance`."""
    below = (math.comb(images, k) * tolerance**k * (1 - tolerance) ** (images - k) for k in range(lost - gained))
    return max(0.0, 1 - math.fsum(below))


def drop_chance(lost: int, gained: int, images: int, tolerance: float) -> float:
    """Return how likely a drop at least so large is where the true drop is `tolerance`: a one-sided p-value.

    Tango's test; on fewer than ten changed decisions the larger of its value and the exact binomial tail. `paired_drop` calls
    broken what is below 0.05; of several tests at once, a multiplicity correction needs the value itself.

    Args:
        lost: images that only the baseline has right.
        gained: images that only the candidate has right.
        images: all images.
        tolerance: the allowed drop, a proportion in (0, 1).
    """
    approximate = math.erfc(tango_z(lost, gained, images, tolerance) / math.sqrt(2)) / 2
    if lost + gained >= FEW_DISCORDANT:
        return approximate
    return max(approximate, _exact_chance(lost, gained, images, tolerance))


def unpaired_drop(baseline: tuple[int, int], candidate: tuple[int, int], z: float = CRITICAL_Z) -> tuple[float, float, float]:
    """Return how much smaller a proportion is than another one of other images, with its bounds.

    Newcombe's hybrid score interval (Newcombe 1998, Statistics in Medicine 17, method 10): with p the proportions, l and u
    their Wilson bounds and d = p₁ - p₂, from d - √((p₁ - l₁)² + (u₂ - p₂)²) to d + √((u₁ - p₁)² + (p₂ - l₂)²).

    Args:
        baseline: right decisions and images.
        candidate: likewise.
        z: of each bound; 95 % one-sided unless it says otherwise.

    Returns:
        The estimate, the lower and the upper bound: proportions.
    """
    (first, low1, high1), (second, low2, high2) = (
        (right / images, *wilson_interval(right, images, z)) for right, images in (baseline, candidate)
    )
    drop = first - second
    return drop, drop - math.hypot(first - low1, high2 - second), drop + math.hypot(high1 - first, second - low2)


def hodges_lehmann(differences: Sequence[float], alpha: float = 0.05) -> Shift:
    """Return the median of the pairwise means of paired differences, with exact signed-rank bounds.

    With K differences there are M = K(K + 1)/2 pairwise means. The bounds are the (q + 1)-th smallest and largest of them,
    q being the largest number with P(W ≤ q) ≤ alpha for Wilcoxon's W over K untied pairs (Hodges and Lehmann 1963).

    Args:
        differences: one per pair, such as the logarithm of a ratio.
        alpha: the chance of being wrong on each side.

    Raises:
        ValueError: no differences.
    """
    if not differences:
        raise ValueError("an estimate needs at least one pair")
    means = sorted((x + y) / 2 for i, x in enumerate(differences) for y in differences[i:])
    skipped = _signed_rank_quantile(len(differences), alpha)
    low, high = (-math.inf, math.inf) if skipped is None else (means[skipped], means[-1 - skipped])
    return Shift(estimate=statistics.median(means), low=low, high=high, pairs=len(differences))


def _signed_rank_quantile(pairs: int, alpha: float) -> int | None:
    """Return the largest q with P(W ≤ q) ≤ alpha, or None if not even q = 0 is so unlikely."""
    counts = [1]  # counts[w]: the sets of ranks 1…k that sum to w
    for rank in range(1, pairs + 1):
        longer = counts + [0] * rank
        for w, count in enumerate(counts):
            longer[w + rank] += count
        counts = longer
    allowed = alpha * 2**pairs
    total, q = 0, None
    for w, count in enumerate(counts):
        total += count
        if total > allowed:
            break
        q = w
    return q
