"""The timer that takes a release back by itself: a process of its own, that neither the link nor the host can take along."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from ..exitcodes import ExitCode, RunnerError
from ..footprint import own_command, own_environment
from .back import taken_back
from .place import Place, lock_now
from .settings import Settings, read_settings
from .state import TRYING, State, read_state

START_S = 90.0
"""For a Python that starts on a slow board while something else keeps it busy."""
LOCK_S = 10.0
POLL_S = 0.25
READY = b"ready\n"


def start_timer(place: Place, release: str) -> None:
    """Start the timer of a release and return once it watches.

    Raises:
        RunnerError: TARGET: it did not start, so nothing may be tried.
    """
    command = [*own_command(), "install", "_timer", str(place.folder), release]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=own_environment(),
            cwd="/",
            start_new_session=True,
            timeout=START_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise RunnerError(f"the timer of the release cannot be started: {fault}", ExitCode.TARGET) from None
    if done.stdout != READY:
        raise RunnerError("the timer of the release did not start", ExitCode.TARGET)


def watch_detached(place: Place, release: str) -> int:
    """Take the timer's lock, fork, say `ready` and end; the fork watches. Returns the exit code of both."""
    handle = os.open(str(place.folder / "timer.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _locked(handle):
        return int(ExitCode.TARGET)
    if os.fork():
        os.write(1, READY)
        # Without the interpreter's tidying up: the fork holds the same lock.
        os._exit(0)
    with contextlib.suppress(OSError):
        # Commands over a link are what the kernel ends first for memory; who takes a release back must not be.
        Path("/proc/self/oom_score_adj").write_text("0", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _watch(place, release)
    return 0


def _locked(handle: int) -> bool:
    end = time.monotonic() + LOCK_S
    while not _lock(handle):
        if time.monotonic() > end:
            return False
        # The timer of the attempt before notices its end at its next look.
        time.sleep(POLL_S / 5)
    return True


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _watch(place: Place, release: str) -> None:
    """Look now and then; take the release back if whoever tried it died, or nobody confirmed it in time."""
    settings = read_settings(place)
    healthy_since = None
    while True:
        time.sleep(POLL_S)
        with lock_now(place.folder / "lock") as held:
            if not held:
                # Whoever started this timer is at work, and frees the lock by ending, in whatever way.
                continue
            state = read_state(place)
            if state.attempt != release or state.state != TRYING:
                return
            if healthy_since is None and state.healthy:
                healthy_since = time.monotonic()
            if _is_over(place, settings, state, healthy_since):
                return


def _is_over(place: Place, settings: Settings, state: State, healthy_since: float | None) -> bool:
    """Take the release back if it is time, and return whether it was."""
    if healthy_since is None:
        reason = "the process that tried it ended before its health check had passed"
    elif time.monotonic() - healthy_since > settings.confirm_s:
        reason = f"it was not confirmed within {settings.confirm_s:g} s: the host is gone"
    else:
        return False
    try:
        taken_back(place, settings, state, reason)
    except OSError as fault:
        # A disk that is full or failing now may not be so at the next look.
        sys.stderr.write(f"{fault}\n")
        return False
    return True
