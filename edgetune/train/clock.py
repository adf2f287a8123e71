"""How far a run has come: by its steps, or, with a time budget, by the clock if that is ahead."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Counts the seconds that training took, over all its resumptions, and says how far along the schedule it is.

    With a budget the schedule is stretched over the time that there is (budgeted training, Li, Yumer and Ramanan 2020): where
    the steps would take too long, the learning rate falls with the clock, and a run that is cut short still ends its schedule.

    Args:
        steps: of the whole run, if there is time.
        budget_s: seconds, or None.
    """

    def __init__(self, steps: int, budget_s: float | None) -> None:
        self.steps, self.budget_s = steps, budget_s
        self.spent_s = self.validation_s = 0.0
        self._begun: float | None = None

    def start(self) -> None:
        """Begin to count."""
        self._begun = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far."""
        return self.spent_s + (0.0 if self._begun is None else time.monotonic() - self._begun)

    def position(self, step: int) -> float:
        """Return the place on the schedule, in steps from 0 to `steps`, before a step (counted from 0) is done."""
        if self.budget_s is None:
            return float(step)
        # What the last validation will take is set aside.
        share = self.elapsed_s / max(self.budget_s - self.validation_s, 1e-9)
        return max(float(step), min(1.0, share) * self.steps)

    def is_over(self, step: int) -> bool:
        """Return whether the run has to end before a step."""
        return self.position(step) >= self.steps
