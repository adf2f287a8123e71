"""How often the values of a tensor occur, in memory that does not grow with the number of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["BINS", "SMALLEST_RANGE", "Histogram"]

# Eight bins to each step of an 8-bit grid over the whole range.
BINS = 2048
# A tensor whose values lie closer together, and to zero, is taken for one that is always zero.
SMALLEST_RANGE = 1e-12
VALUES_AT_ONCE = 2**13


def _no_counts() -> npt.NDArray[np.float64]:
    import numpy as np

    return np.zeros(BINS)


@dataclass(kw_only=True)
class Histogram:
    """The values of a tensor: zero, and equal bins from the smallest to the largest.

    Every grid holds zero, so the bins begin at zero or before it and end at zero or behind it, even where no value is. Zero
    itself is counted apart: it is never rounded or clipped, and after a ReLU it is half of all values.

    Attributes:
        low: the smallest value seen, or zero.
        high: the largest value seen, or zero.
        counts: float64 `[BINS]`, of the values other than zero.
        zeros: how many values are zero.
    """

    low: float
    high: float
    counts: npt.NDArray[np.float64] = field(default_factory=_no_counts)
    zeros: float = 0.0

    @property
    def bin_width(self) -> float:
        """The width of each bin; never zero, so that one can divide by it."""
        return max(self.high - self.low, SMALLEST_RANGE) / BINS

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """The ends of the bins: float64 `[BINS + 1]`."""
        import numpy as np

        return np.arange(BINS + 1, dtype=np.float64) * self.bin_width + self.low

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count more values.

        Args:
            values: of any shape, in [low, high].
        """
        import numpy as np

        flat = values.ravel()
        # Few at a time: large temporary arrays of all sizes would leave holes in the heap.
        for start in range(0, len(flat), VALUES_AT_ONCE):
            part = flat[start : start + VALUES_AT_ONCE]
            counts = np.bincount(self._bins(part), minlength=BINS + 1)
            # The largest value falls behind the last bin.
            self.counts[:] += counts[:BINS]
            self.counts[-1] += counts[BINS:].sum()
        zeros = len(flat) - np.count_nonzero(flat)
        self.counts[min(self._bins(np.zeros(1, np.float32)).item(), BINS - 1)] -= zeros
        self.zeros += float(zeros)

    def _bins(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        import numpy as np

        # Scaled before they are shifted: the other way around, float32 could overflow. What a rounding error puts in front of
        # the first bin, cutting off the fraction brings back.
        return (values * (1.0 / self.bin_width) - self.low / self.bin_width).astype(np.intp)
