"""The options of commands that measure: how queries are paced, for how long, in how many streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["Counts", "timing_options"]

Function = TypeVar("Function", bound=Callable[..., Any])
MOST = 256


class Counts(click.ParamType):  # type: ignore[type-arg]
    """Numbers of streams such as 1,2,4."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers, each once, as they were given."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdigit() and 1 <= int(part) <= MOST for part in parts):
            self.fail(f"got {value!r}, expected numbers from 1 to {MOST} such as 1,2,4", param, ctx)
        return tuple(dict.fromkeys(map(int, parts)))


def timing_options(function: Function) -> Function:
    """Add --period-ms and --min-seconds to a command."""
    period = click.option(
        "--period-ms",
        metavar="MS",
        type=click.FloatRange(0, 3.6e6),
        default=0.0,
        help="Begin a query every so many ms, as a device does that sleeps in between.",
    )
    least = click.option(
        "--min-seconds",
        metavar="S",
        type=click.FloatRange(0, 86400),
        default=0.0,
        help="Measure latency for so long at least; MLPerf asks for 60.",
    )
    return period(least(function))
