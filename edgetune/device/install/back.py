"""The way back: the link first, then the state. Whatever dies, the next one who comes goes on from what it finds."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..digest import check_bundle
from ..exitcodes import ExitCode, RunnerError
from .crash import reached
from .place import Place, lock_now
from .settings import Settings
from .state import FAILED, ROLLED_BACK, TRYING, State, note, read_state, write_state
from .trial import limited


def is_tried(place: Place) -> bool:
    """Return whether a timer watches a release that is being tried; the kernel knows, whatever happened to the process."""
    with lock_now(place.folder / "timer.lock") as free:
        return not free


def recovered(place: Place, settings: Settings) -> State:
    """Return the state after mending what a death has left behind. Every command begins with this; the lock is held.

    A release that is being tried without a living timer is taken back and remembered as bad. While the timer lives, nothing is
    done: the release may still be confirmed.

    Raises:
        RunnerError: ARTEFACT: the state cannot be read.
        OSError: something cannot be written; the next command tries again.
    """
    for leftover in (*place.folder.glob(".state.json.*"), *place.folder.glob(".device.json.*")):
        with contextlib.suppress(OSError):
            leftover.unlink()
    state = read_state(place)
    if state.state == TRYING and not is_tried(place):
        return taken_back(place, settings, state, "it was being tried when the power or its process ended")
    return state


def taken_back(place: Place, settings: Settings, state: State, reason: str) -> State:
    """Return the state after leading `current` back to what was committed last, or what was before it if that is corrupt.

    Args:
        place: the product.
        settings: the device's.
        state: being TRYING.
        reason: why, for the log and for whoever asks.

    Raises:
        OSError: something cannot be written; the state is still TRYING, so that the next command tries again.
    """
    wanted = list(dict.fromkeys([name for name in (state.current, *state.history) if name and name != state.attempt]))
    target = next((name for name in wanted if is_intact(place.release(name))), None)
    if target is None and wanted:
        # Nothing good to go back to: what is linked now is at least what was built.
        lost = replace(state, state=FAILED, bad=state.with_bad(), reason=f"{reason}; and {', '.join(wanted)} cannot be used")
        write_state(place, lost)
        note(place, "failed", state.attempt, lost.reason)
        return lost
    place.switch(target)
    reached("back-switched")
    with contextlib.suppress(RunnerError):
        # The old release answers again, whatever the hook says of it; the log has it.
        restart(place, settings, target, None)
    reached("back-restarted")
    history = tuple(name for name in state.history if name != state.attempt)
    after = replace(
        state, state=ROLLED_BACK, healthy=False, current=target, history=history, bad=state.with_bad(), reason=reason
    )
    write_state(place, after)
    reached("back-stated")
    note(place, "rolled-back", state.attempt, f"{reason}; current is {target}")
    return after


def is_intact(folder: Path) -> bool:
    """Return whether a release is there and is what was built."""
    try:
        check_bundle(folder)
    except RunnerError:
        return False
    return True


def restart(place: Place, settings: Settings, release: str | None, model_sha256: str | None) -> None:
    """Let the application load what `current` leads to now.

    Raises:
        RunnerError: TARGET: the device's restart command failed or hung.
    """
    _hook(place, settings.restart, settings.restart_s, "restart", release, model_sha256)


def ask_health(place: Place, settings: Settings, release: str, model_sha256: str) -> None:
    """Ask the device's own health command; it finds the release and the model's digest in its environment.

    Raises:
        RunnerError: TARGET: it failed or hung.
    """
    _hook(place, settings.health, settings.health_s, "health", release, model_sha256)


def _hook(
    place: Place, command: tuple[str, ...], seconds: float, name: str, release: str | None, model_sha256: str | None
) -> None:
    if not command:
        return
    facts: Mapping[str, str | None] = {
        "EDGETUNE_PRODUCT": str(place.folder),
        "EDGETUNE_RELEASE": release,
        "EDGETUNE_MODEL_SHA256": model_sha256,
    }
    given = [f"{key}={value}" for key, value in facts.items() if value is not None]
    try:
        done = limited(["env", *given, *command], seconds)
    except RunnerError as fault:
        note(place, name, release, fault.message)
        raise RunnerError(f"the {name} command of this device: {fault.message}", ExitCode.TARGET) from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        text = f"the {name} command of this device ended with {done.returncode}" + (f": {words[-1][:200]}" if words else "")
        note(place, name, release, text)
        raise RunnerError(text, ExitCode.TARGET)
