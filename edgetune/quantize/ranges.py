"""From the histogram of an activation to its range, and from the range to the grid of an 8-bit type.

A wide range clips nothing and rounds coarsely, a narrow one the other way around. `minmax` clips nothing, `percentile` a given
part of the values. The others search for the range with the least damage: `mse` and `pnorm` by the p-norm of the error,
`entropy` by what the distribution loses. No search goes beyond the extremes, and every range holds zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from edgetune.quantize.graph import Grid, integer_limits
from edgetune.quantize.histogram import SMALLEST_RANGE, Histogram

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    # From the lower and upper ends of candidate ranges, each `[k]`, to the damage that each does, `[k]`.
    Loss = Callable[[Floats, Floats], Floats]

__all__ = ["Method", "choose_range", "entropy_loss", "make_grid", "norm_loss", "percentile_range", "search_range"]

Method = Literal["minmax", "percentile", "mse", "entropy", "pnorm"]

# p = 3 weighs rare large errors more than the mean square does, and measures better than it on the logits.
POWERS: dict[Method, int] = {"mse": 2, "pnorm": 3}
# An end of a range is searched among this many factors, down to the narrowest, and then between the neighbours of the best.
COARSE, FINE = 48, 17
NARROWEST = 1 / 64
# The ends take turns until neither moves; nearly always that is after the second turn.
TURNS = 4


def choose_range(histogram: Histogram, *, method: Method, percentile: float, kind: str, symmetric: bool) -> tuple[float, float]:
    """Return the range of a tensor, zero included, inside its extremes unless it is symmetric.

    Args:
        histogram: the values; `minmax` needs none but the extremes.
        method: how to choose.
        percentile: for `percentile`: the part of the values that lies in the range, in percent.
        kind: uint8 or int8, the type of the grid.
        symmetric: the grid's zero point is in the middle of the type.
    """
    if method == "minmax" or histogram.high - histogram.low < SMALLEST_RANGE:
        return histogram.low, histogram.high
    if method == "percentile":
        return percentile_range(histogram, percentile)
    if method == "entropy":
        loss = entropy_loss(histogram, kind, symmetric=symmetric)
    else:
        loss = norm_loss(histogram, POWERS[method], kind, symmetric=symmetric)
    return search_range(loss, histogram.low, histogram.high, symmetric=symmetric)


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Return the range that leaves out the same part of the values at both ends, (100 - percentile) / 2 percent.

    The ends are in the bin of the exact quantile, and interpolated within it. Zeros are values like others, but no range leaves
    out zero.
    """
    kept = 1.0 - (100.0 - percentile) / 200.0
    high = _quantile(histogram.edges, histogram.counts, histogram.zeros, kept)
    low = -_quantile(-histogram.edges[::-1], histogram.counts[::-1], histogram.zeros, kept)
    return max(min(low, 0.0), histogram.low), min(max(high, 0.0), histogram.high)


def _quantile(edges: Floats, counts: Floats, zeros: float, part: float) -> float:
    """Return the value that a part of all values lies below; where several would do, the largest."""
    import numpy as np

    # The zeros are a jump of the cumulative count, at one place.
    behind = int(np.searchsorted(edges, 0.0, side="right"))
    below = np.concatenate([[0.0], np.cumsum(counts)])
    at_zero = np.interp(0.0, edges, below)
    places = np.concatenate([edges[:behind], [0.0, 0.0], edges[behind:]])
    cumulative = np.concatenate([below[:behind], [at_zero, at_zero + zeros], below[behind:] + zeros])
    return float(np.interp(part * cumulative[-1], cumulative, places))


def search_range(loss: Loss, low: float, high: float, *, symmetric: bool = False) -> tuple[float, float]:
    """Return the range with the smallest loss.

    Both ends shrink towards zero, each by its own factor, by turns; an end at zero stays there. Among equals the widest wins.

    Args:
        loss: of candidates.
        low: the lower end to start from, not above zero.
        high: the upper end to start from, not below zero.
        symmetric: both ends are equally far from zero: as far as the farther one is, to start with.
    """
    if symmetric:
        reach = max(-low, high)
        reach *= _best_factor(loss, still=(0.0, 0.0), moving=(-reach, reach))
        return -reach, reach
    bottom, top = low, high
    for _ in range(TURNS):
        before = bottom, top
        if low < 0:
            bottom = low * _best_factor(loss, still=(0.0, top), moving=(low, 0.0))
        if high > 0:
            top = high * _best_factor(loss, still=(bottom, 0.0), moving=(0.0, high))
        if (bottom, top) == before:
            break
    return bottom, top


def _best_factor(loss: Loss, *, still: tuple[float, float], moving: tuple[float, float]) -> float:
    """Return the factor f, at most 1, for which the range still + f moving has the smallest loss."""
    import numpy as np

    def losses(factors: Floats) -> Floats:
        return loss(still[0] + moving[0] * factors, still[1] + moving[1] * factors)

    coarse = np.geomspace(1.0, NARROWEST, COARSE)
    best = int(np.argmin(losses(coarse)))
    around = np.linspace(coarse[max(best - 1, 0)], coarse[min(best + 1, COARSE - 1)], FINE)
    candidates = np.concatenate([coarse[best : best + 1], around])
    return float(candidates[np.argmin(losses(candidates))])


def _integers(bottoms: Floats, tops: Floats, kind: str, *, symmetric: bool) -> tuple[Floats, Floats, Floats]:
    """Return scale, least and most integer, counted from the zero point, of the grid that `make_grid` makes of each range."""
    import numpy as np

    smallest, largest = integer_limits(kind)
    if symmetric:
        middle = (smallest + largest + 1) // 2
        scales = np.maximum(-bottoms, tops) / (largest - middle)
        return scales, np.full_like(scales, smallest - middle), np.full_like(scales, largest - middle)
    scales = (tops - bottoms) / (largest - smallest)
    below = np.rint(-bottoms / scales)
    return scales, -below, largest - smallest - below


def norm_loss(histogram: Histogram, power: int, kind: str, *, symmetric: bool) -> Loss:
    """Return the loss of a range: the sum of |x - q(x)|^p over all values, q(x) being what x is rounded or clipped to.

    The values of a bin are taken to be spread evenly over it, for which the integral is exact: in units of the scale, with
    n(x) = round(x) clipped to the grid and d = x - n(x), |d|^p has the antiderivative

        F(x) = n(x) 2 (1/2)^(p+1) / (p + 1) + sign(d) |d|^(p+1) / (p + 1),

    and summing c_i (F(x_i+1) - F(x_i)) over bins is, by parts, a scalar product of F at the edges with the differences of c.

    Args:
        histogram: the values; zeros have no error.
        power: p.
        kind: uint8 or int8.
        symmetric: of the grid.
    """
    import numpy as np

    jumps = -np.diff(histogram.counts, prepend=0.0, append=0.0)
    used = jumps != 0
    edges, jumps = histogram.edges[used], jumps[used] / (histogram.bin_width * (power + 1))

    def loss(bottoms: Floats, tops: Floats) -> Floats:
        scales, least, most = _integers(bottoms, tops, kind, symmetric=symmetric)
        places = edges / scales[:, None]
        nearest = np.clip(np.rint(places), least[:, None], most[:, None])
        places -= nearest
        size = np.abs(places)
        for _ in range(power):
            places *= size
        nearest *= 2.0 * 0.5 ** (power + 1)
        nearest += places
        # Not by BLAS, whose sums depend on the number of threads.
        nearest *= jumps
        result: Floats = nearest.sum(axis=1) * scales ** (power + 1)
        return result

    return loss


def entropy_loss(histogram: Histogram, kind: str, *, symmetric: bool) -> Loss:
    """Return the loss of a range: the Kullback-Leibler divergence of the clipped distribution P from the quantized one Q.

    After Szymon Migacz, 8-bit Inference with TensorRT (GTC 2017), with the grid's own integers in place of 128 equal groups of
    bins above zero, so that it holds for two-sided tensors and zero points, too. With c_i the counts of the bins that are not
    empty, over the bins i inside a range,

        P_i = c_i, plus at the first and the last of them what is outside on its side;
        Q_i = (sum of c_j over the bins j with the same integer) / (their number);
        loss = sum of p_i log(p_i / q_i), where p and q are P and Q divided by their sums.

    Traps: a grid finer than the bins loses nothing but what it clips, whatever it does to the values, so no such range is
    considered. Were outliers put into an empty bin, Q would be zero there and the loss infinite. Zeros are left out, as they
    have an integer of their own in every grid; after a ReLU they would outweigh all else.

    Args:
        histogram: the values.
        kind: uint8 or int8.
        symmetric: of the grid.
    """
    import numpy as np

    used = histogram.counts > 0
    counts = histogram.counts[used]
    centres = (histogram.edges[:-1] + 0.5 * histogram.bin_width)[used]
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    logs = np.concatenate([[0.0], np.cumsum(counts * np.log(counts))])

    def loss(bottoms: Floats, tops: Floats) -> Floats:
        scales, least, most = _integers(bottoms, tops, kind, symmetric=symmetric)
        integers = least[:, None] + np.arange(most[0] - least[0] + 2.0)
        # Where the bins of each integer begin, and behind the last: bins are in order, and so are their integers.
        starts = np.searchsorted(centres, (integers - 0.5) * scales[:, None])
        first, last = np.minimum(starts[:, 0], len(counts) - 1), np.maximum(starts[:, -1] - 1, 0)
        inside, left, right = sums[last + 1] - sums[first], sums[first], sums[-1] - sums[last + 1]
        numbers, groups = np.diff(starts, axis=1), np.diff(sums[starts], axis=1)
        log_q = np.log(np.divide(groups, numbers, out=np.ones_like(groups), where=numbers > 0))
        total = logs[last + 1] - logs[first] - (groups * log_q).sum(axis=1)
        alone = first == last
        ends = ((first, left + right * alone, numbers > 0), (last, right * ~alone, numbers[:, ::-1] > 0))
        for (place, extra, groups_in_use), log_qs in zip(ends, (log_q, log_q[:, ::-1]), strict=True):
            log_q_there = np.take_along_axis(log_qs, groups_in_use.argmax(axis=1)[:, None], axis=1)[:, 0]
            with_extra = counts[place] + extra
            total += with_extra * np.log(with_extra) - counts[place] * np.log(counts[place]) - extra * log_q_there
        possible = (scales > 0.999 * histogram.bin_width) & (starts[:, 0] < starts[:, -1])
        divergence = total / sums[-1] - np.log(sums[-1]) + np.log(np.where(possible, inside, 1.0))
        # Rounded, so that ranges that lose nothing are equals.
        return np.where(possible, divergence.round(12), np.inf)

    return loss


def make_grid(low: float, high: float, kind: str, *, symmetric: bool, limits: tuple[float, float] | None = None) -> Grid:
    """Return the grid of an 8-bit type that covers [low, high] and holds zero exactly.

    Args:
        low: the smallest value to be represented.
        high: the largest value to be represented.
        kind: uint8 or int8.
        symmetric: put the zero point in the middle of the type.
        limits: no integer of an asymmetric grid stands for a value outside of them, rounding of scale and zero point included:
            only then does the runtime drop the clamp that they belong to.
    """
    import numpy as np

    smallest, largest = integer_limits(kind)
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < SMALLEST_RANGE:
        # The calibration images say nothing about the scale of a tensor that is zero for all of them.
        low, high = (max(-1.0, limits[0]), min(1.0, limits[1])) if limits else (0.0, 1.0)
        low, high = min(low, 0.0), max(high, SMALLEST_RANGE)
    if symmetric:
        middle = (smallest + largest + 1) // 2
        return Grid(scale=float(np.float32(max(-low, high) / (largest - middle))), zero_point=middle)
    scale = np.float32((high - low) / (largest - smallest))
    zero = int(np.clip(round(smallest - low / float(scale)), smallest, largest))
    if limits is not None and limits[0] <= 0.0 <= limits[1]:
        below, above = np.float32(zero - smallest), np.float32(largest - zero)
        for reach, limit in ((below, -limits[0]), (above, limits[1])):
            if reach * scale > limit >= SMALLEST_RANGE:
                scale = np.float32(limit / reach)
                scale = np.nextafter(scale, np.float32(0.0)) if reach * scale > limit else scale
    return Grid(scale=float(scale), zero_point=zero)
