"""How a signal ends a run: at the next step of a stage that can save its state, else at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop"]


class Stop:
    """Whether the run was asked to end.

    While a stage polls it (`with stop.polled()`), the first SIGINT or SIGTERM only sets it, so that the stage finishes its step
    and saves; a second one, or one at any other time, raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.asked = False
        self._polled = False

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self.asked

    @contextmanager
    def polled(self) -> Iterator[None]:
        """Say that the code inside asks often and saves its state when told to stop."""
        self._polled = True
        try:
            yield
        finally:
            self._polled = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM of this process; the main thread only."""
        before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked or not self._polled:
            raise KeyboardInterrupt
        self.asked = True
