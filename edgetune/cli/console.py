"""What a command says while it works: a live display on a terminal, plain lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from edgetune.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Live", "Plain", "progress"]

SECONDS_BETWEEN = 10.0
"""A log hears of a label at most this often …"""
SECONDS_SILENT = 60.0
"""… and at least this often, …"""
STEP_FRACTION = 0.1
"""… or when this much more of the work is done."""


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Yield what a stage may talk to: a live display if `stream` is a terminal, else plain lines.

    Args:
        stream: where to talk; stderr if None, so that stdout is left to the results.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield Plain(stream)
        return
    live = Live(stream)
    try:
        yield live
    finally:
        live.close()


class Plain:
    """One line per sentence, and now and then one about each label: a log is read afterwards.

    Args:
        stream: where to write.
        clock: seconds, for the time left.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began: dict[str, tuple[int, float]] = {}
        self._said: dict[str, tuple[int, float]] = {}

    def line(self, text: str) -> None:
        """Write one sentence."""
        print(text, file=self._stream, flush=True)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        """Write how far `label` is if the last line about it is long enough ago; its end is always written."""
        now = self._clock()
        if label not in self._began or done < self._said[label][0]:
            # New, or begun again. A resumed stage starts in the middle, so the pace counts from there.
            self._began[label] = self._said[label] = (min(done, total - 1), now)
        said_done, said_time = self._said[label]
        silence = now - said_time
        if done >= total:
            due = said_done < total
        else:
            due = silence >= SECONDS_SILENT or (silence >= SECONDS_BETWEEN and done - said_done >= STEP_FRACTION * total)
        if due and done > said_done:
            self._said[label] = (done, now)
            self.line("  ".join(part for part in (f"{label}: {done}/{total}", note, self._left(label, done, total)) if part))

    def _left(self, label: str, done: int, total: int) -> str:
        began_done, began_time = self._began[label]
        seconds = (self._said[label][1] - began_time) / (done - began_done) * (total - done)
        return f"{duration(seconds)} left" if seconds >= 1 else ""


class Live:
    """A bar per label with its note and the time left, on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(file=stream)
        self._display: RichProgress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}

    def line(self, text: str) -> None:
        """Write one sentence above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        """Move the bar of `label`, drawing it first if it is new."""
        if not self._tasks:
            self._display.start()
        if label not in self._tasks:
            self._tasks[label] = self._display.add_task(label, total=total, note=note)
        self._display.update(self._tasks[label], completed=done, total=total, note=note)

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self._display.stop()


def duration(seconds: float) -> str:
    """Return a time span as a person says it: `45 s`, `3 min`, `1 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
