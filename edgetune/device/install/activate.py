"""Activating: check what has arrived, prove it, switch to it, judge it, and keep it once the host has seen it healthy."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..atomic import sync_folder
from ..digest import MANIFEST, SIGNATURE, check_bundle, sha256_file
from ..exitcodes import ExitCode, RunnerError
from .back import ask_health, is_tried, recovered, restart, taken_back
from .candidate import Candidate, stored_candidate
from .crash import reached
from .place import Place, alone, remove
from .preflight import check_machine
from .receive import attempt_of, refuse, take_lease
from .retention import retain
from .settings import SIGNED, Settings, read_settings
from .state import COMMITTED, FAILED, INSTALLED, TRYING, VERIFIED, State, note, read_state, write_state
from .timer import start_timer
from .trial import prove


def activate(
    place: Place,
    manifest_sha256: str,
    shipper: str,
    forgive: bool = False,
    proving: Callable[[Path, float], dict[str, Any]] = prove,
    starting: Callable[[Place, str], None] = start_timer,
) -> dict[str, Any]:
    """Install what has arrived and switch to it; it stays on trial until `confirm`, and the timer takes it back without.

    Args:
        place: the product.
        manifest_sha256: of the release, as `begin` gave it.
        shipper: as for `begin`.
        forgive: as for `begin`.
        proving: runs the golden images of a folder within a time limit.
        starting: starts the timer of a release.

    Returns:
        `release`, `state` (`TRYING`), `confirm_within_s`, and what `prove` found through the link.

    Raises:
        RunnerError: what was wrong; before the switch nothing has changed, after it the release was taken back.
        OSError: something cannot be written; likewise.
    """
    settings = read_settings(place)
    with alone(place):
        state = recovered(place, settings)
        take_lease(place, shipper)
        candidate = _installed(place, settings, state, manifest_sha256, forgive)
        state = attempt_of(state, candidate, INSTALLED, state.bad)
        write_state(place, state)
        reached("installed")
        proving(place.release(candidate.release), settings.health_s)
        reached("proven")
        starting(place, candidate.release)
        reached("timed")
        found = _tried(place, settings, state, candidate.manifest, proving)
        return {"release": candidate.release, "state": TRYING, "confirm_within_s": settings.confirm_s, **found}


def _installed(place: Place, settings: Settings, state: State, manifest_sha256: str, forgive: bool) -> Candidate:
    """Bring a release to its place, whole and synced, and return it."""
    incoming = place.incoming / manifest_sha256
    if not incoming.is_dir():
        # It was renamed before the process died.
        there = [name for name in place.names() if state.manifest_sha256 == manifest_sha256 and name == state.attempt]
        incoming = place.release(there[0]) if there else incoming
    candidate = stored_candidate(place, settings, incoming)
    if candidate.manifest_sha256 != manifest_sha256:
        raise RunnerError(f"{MANIFEST} is another one than was begun with", ExitCode.ARTEFACT)
    refuse(candidate, state, forgive)
    check_machine(candidate)
    if incoming.parent == place.incoming:
        _drop_strays(incoming, candidate, settings)
        _check_arrived(incoming, candidate)
        reached("checked")
        sync_tree(incoming)
        reached("synced")
        write_state(place, attempt_of(state, candidate, VERIFIED, state.bad))
        reached("verified")
        final = place.release(candidate.release)
        if final.exists():
            remove(final)
        incoming.rename(final)
        sync_folder(place.releases)
        sync_folder(place.incoming)
        reached("renamed")
    check_bundle(place.release(candidate.release))
    return candidate


def _tried(
    place: Place, settings: Settings, state: State, manifest: dict[str, Any], proving: Callable[[Path, float], dict[str, Any]]
) -> dict[str, Any]:
    """Switch to the attempt and judge it there; whatever goes wrong, it is taken back."""
    release = str(state.attempt)
    state = replace(state, state=TRYING, healthy=False)
    write_state(place, state)
    try:
        reached("tried")
        note(place, "trying", release)
        place.switch(release)
        reached("switched")
        digest = manifest["files"]["model.onnx"]["sha256"]
        restart(place, settings, release, digest)
        reached("restarted")
        found = proving(place.current, settings.health_s)
        if found["model_sha256"] != digest or sha256_file(place.current / "model.onnx") != digest:
            raise RunnerError("the model that current leads to is not that of the release", ExitCode.ARTEFACT)
        ask_health(place, settings, release, digest)
        write_state(place, replace(state, healthy=True))
        reached("healthy")
    except (RunnerError, OSError) as fault:
        words = fault.message if isinstance(fault, RunnerError) else f"{fault.strerror}: {fault.filename or place.folder}"
        details = "; ".join([words, *(fault.faults if isinstance(fault, RunnerError) else ())])
        after = taken_back(place, settings, state, details)
        end = (
            "nothing good was left to go back to" if after.state == FAILED else f"current is {after.current or 'nothing'} again"
        )
        code = fault.code if isinstance(fault, RunnerError) else ExitCode.TARGET
        raise RunnerError(f"{release} was taken back: {details}; {end}", code) from None
    note(place, "healthy", release)
    return found


def confirm(place: Place, manifest_sha256: str) -> dict[str, Any]:
    """Keep the release that is being tried: the host has heard that it is healthy.

    Returns:
        `release`, `state` (`COMMITTED`) and `removed`: releases that made room.

    Raises:
        RunnerError: BROKEN: it was taken back meanwhile. USAGE: another one, or none, is being tried.
        OSError: something cannot be written; the timer takes the release back.
    """
    settings = read_settings(place)
    with alone(place):
        state = recovered(place, settings)
        if state.manifest_sha256 == manifest_sha256 and state.state == COMMITTED:
            return {"release": state.attempt, "state": COMMITTED, "removed": []}
        if state.manifest_sha256 != manifest_sha256 or not state.healthy or state.state != TRYING or not is_tried(place):
            gone = state.manifest_sha256 == manifest_sha256 and state.reason
            text = f"{state.attempt} was taken back: {state.reason}" if gone else "this release is not being tried here"
            raise RunnerError(text, ExitCode.BROKEN if gone else ExitCode.USAGE)
        return committed(place, state)


def committed(place: Place, state: State) -> dict[str, Any]:
    """Write that the attempt is what is current from now on, and make room."""
    release = str(state.attempt)
    history = (release, *(name for name in state.history if name != release))
    counter = max(state.highest_counter, int(release.partition("-")[0]))
    state = replace(state, state=COMMITTED, healthy=False, current=release, history=history, highest_counter=counter, reason="")
    try:
        write_state(place, state)
    except OSError:
        # Once it has its name, only whether it outlives the power is open; then either state is whole, and so is this.
        if read_state(place) != state:
            raise
    reached("committed")
    note(place, "committed", release)
    removed = retain(place, state)
    reached("retained")
    return {"release": release, "state": COMMITTED, "removed": removed}


def roll_back(place: Place, to: str | None = None, proving: Callable[[Path, float], dict[str, Any]] = prove) -> dict[str, Any]:
    """Lead `current` to an earlier release that is still there, verified as any other; or end a trial.

    Args:
        place: the product.
        to: the release; None for the last good one before what is current.
        proving: as for `activate`.

    Returns:
        `release`, `state`, `was` (what was current before) and `skipped`: releases that cannot be used any more.

    Raises:
        RunnerError: USAGE: there is no such release. ARTEFACT: none can be used. Else why it does not work; then what was
            current still is.
        OSError: something cannot be written.
    """
    settings = read_settings(place)
    with alone(place):
        state = recovered(place, settings)
        if state.state == TRYING:
            if to is not None and to != state.current:
                raise RunnerError(
                    f"{state.attempt} is being tried here; end that first: roll back without --to", ExitCode.USAGE
                )
            tried, after = state.attempt, taken_back(place, settings, state, "rolled back by hand")
            return {"release": after.current, "state": after.state, "was": tried, "skipped": []}
        target, skipped = _target(place, settings, state, to)
        proving(place.release(target.release), settings.health_s)
        was = state.current
        # Without a timer: it was good before, and a death on the way leads back to what is current now.
        attempt = attempt_of(state, target, INSTALLED, state.bad)
        _tried(place, settings, attempt, target.manifest, proving)
        note(place, "rolled-back-by-hand", target.release, f"from {was}")
        done = committed(place, replace(attempt, history=_after(state.history, was)))
        return {"release": done["release"], "state": COMMITTED, "was": was, "skipped": skipped}


def _after(history: tuple[str, ...], was: str | None) -> tuple[str, ...]:
    """Return the history with what was rolled back from at its end: still there, but the last to go back to."""
    return (*(name for name in history if name != was), *([was] if was else []))


def _target(place: Place, settings: Settings, state: State, to: str | None) -> tuple[Candidate, list[str]]:
    """Return the release to go back to, and those that should have been it and cannot be used."""
    good = [name for name in state.history if name != state.current]
    if to is not None and to not in good:
        raise RunnerError(f"{to} is no earlier release here; there are {', '.join(good) or 'none'}", ExitCode.USAGE)
    skipped: list[str] = []
    for name in [to] if to is not None else good:
        found = _usable(place, settings, name)
        if isinstance(found, Candidate):
            return found, skipped
        skipped.append(f"{name}: {found}")
    raise RunnerError("there is no earlier release to go back to", ExitCode.ARTEFACT, tuple(skipped))


def _usable(place: Place, settings: Settings, name: str) -> Candidate | str:
    """Return a release that is still what was signed by somebody who may still sign; or why it is not."""
    try:
        check_bundle(place.release(name))
        return stored_candidate(place, settings, place.release(name))
    except RunnerError as fault:
        return str(fault)


def sync_tree(folder: Path) -> None:
    """Make every file and every name below a folder durable.

    Raises:
        OSError: one of them cannot be.
    """
    for root, _, names in os.walk(str(folder), topdown=False):
        for name in names:
            handle = os.open(os.path.join(root, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)  # noqa: PTH118
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(root))


def _drop_strays(folder: Path, candidate: Candidate, settings: Settings) -> None:
    """Remove what an upload may have left beside the files, so that only what the manifest lists is renamed with it."""
    kept = {MANIFEST, *candidate.files, *([SIGNATURE] if settings.trust == SIGNED else [])}
    folders = {str(up) for name in candidate.files for up in PurePosixPath(name).parents}
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            if name not in folders:
                shutil.rmtree(str(path))
        elif name not in kept:
            path.unlink()


def _check_arrived(folder: Path, candidate: Candidate) -> None:
    """Check the bundle; files that are not what was signed are removed, so that the next attempt brings them again.

    Raises:
        RunnerError: ARTEFACT.
    """
    try:
        check_bundle(folder)
    except RunnerError:
        for name, (digest, size) in candidate.files.items():
            path = folder / name
            with contextlib.suppress(OSError):
                if path.is_symlink() or path.stat().st_size != size or sha256_file(path) != digest:
                    path.unlink()
        raise
