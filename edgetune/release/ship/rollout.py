"""A release brought to a fleet, wave by wave; the first failures end it, and running it again finishes the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from edgetune.errors import EdgetuneError
from edgetune.progress import Progress
from edgetune.release.ship.device import Outcome
from edgetune.release.ship.fleet import COMMITTED, FAILED, Progressed, Standing

__all__ = ["Rollout", "roll_out"]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a run ended.

    Attributes:
        stopped: why it ended before its last wave was whole; empty if it did not.
        tried: the devices that this run shipped to, in the order in which they ended.
    """

    stopped: str
    tried: tuple[str, ...]


def roll_out(
    state: Progressed,
    waves: list[int],
    ship: Callable[[str], Outcome],
    *,
    most_failures: int,
    parallel: int,
    progress: Progress,
) -> Rollout:
    """Ship to the devices that do not have the release yet.

    A wave is whole when as many devices have the release as it says. Each failure of this run counts; once there are more than
    allowed, what is under way ends, nothing else begins, and no further wave does.

    Args:
        state: how far it has come; kept up to date on disk.
        waves: of `waves_of`.
        ship: ships to one device; an EdgetuneError is that device's failure.
        most_failures: how many devices may fail before it stops.
        parallel: how many devices are shipped to at a time.
        progress: told one line per device.

    Raises:
        OSError: the state cannot be written.
    """
    queue = state.pending()
    tried: list[str] = []
    failed: list[str] = []
    for number, target in enumerate(waves, 1):
        progress.line(f"wave {number}: {target} of {len(state.standings)} devices")
        for name, standing in _wave(state, queue, target, ship, parallel, most_failures - len(failed)):
            tried.append(name)
            failed += [name] if standing.status == FAILED else []
            state.keep(name, standing)
            progress.line(f"{name}: {standing.status} {standing.detail}".rstrip())
        if len(failed) > most_failures:
            waiting = len(state.standings) - len(state.with_status(COMMITTED)) - len(state.with_status(FAILED))
            return Rollout(
                stopped=f"stopped in wave {number}: {len(failed)} failed, {most_failures} may; {waiting} were not tried",
                tried=tuple(tried),
            )
        if len(state.with_status(COMMITTED)) < target:
            return Rollout(stopped=f"wave {number} has no more devices to try", tried=tuple(tried))
    return Rollout(stopped="", tried=tuple(tried))


def _wave(
    state: Progressed,
    queue: list[str],
    target: int,
    ship: Callable[[str], Outcome],
    parallel: int,
    failures_left: int,
) -> Iterator[tuple[str, Standing]]:
    """Take devices from the queue until enough have the release; yield each as it ends."""
    running: dict[Future[Standing], str] = {}
    with ThreadPoolExecutor(parallel, thread_name_prefix="ship") as pool:
        while True:
            have = len(state.with_status(COMMITTED)) + len(running)
            while queue and have < target and len(running) < parallel and failures_left >= 0:
                name = queue.pop(0)
                running[pool.submit(_standing, ship, name)] = name
                have += 1
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda one: running[one]):
                failures_left -= future.result().status == FAILED
                yield running.pop(future), future.result()


def _standing(ship: Callable[[str], Outcome], name: str) -> Standing:
    try:
        outcome = ship(name)
    except EdgetuneError as fault:
        words = "; ".join([fault.message, *(str(one) for one in fault.faults)])
        return Standing(status=FAILED, detail=words, exit_code=int(fault.exit_code))
    detail = "had it already" if outcome.was_there else f"{outcome.release}, {outcome.sent} files sent"
    return Standing(status=COMMITTED, detail=detail)
