"""Setting a device up for a product, and saying how it stands."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from .. import RUNNER_VERSION
from ..atomic import write_atomic
from ..exitcodes import ExitCode, RunnerError
from .back import is_intact, is_tried, recovered
from .place import Place, alone
from .preflight import check_folder
from .receive import PROTOCOL
from .settings import SIGNED, Settings, read_settings, write_settings
from .signature import check_signers, check_signers_text
from .state import State, note, read_state, write_state


def set_up(place: Place, settings: Settings, signers: bytes | None, revoked: bytes | None) -> dict[str, Any]:
    """Make, or change, a product's folder; releases that are there stay.

    Args:
        place: the product; its folder is made.
        settings: the device's.
        signers: who may sign: a file of OpenSSH's allowed signers; None keeps the one that is there.
        revoked: keys that may not sign any more; None for none.

    Returns:
        As `status`.

    Raises:
        RunnerError: USAGE or ARTEFACT: settings or signers cannot be used. TARGET: the folder cannot hold releases.
        OSError: something cannot be written.
    """
    for folder in (place.folder, place.incoming, place.releases):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    with alone(place):
        check_folder(place, settings)
        if signers is not None:
            check_signers_text(signers, place.signers.name)
            write_atomic(place.signers, signers)
        if settings.trust == SIGNED:
            check_signers(place.signers)
        if revoked is not None:
            write_atomic(place.revoked, revoked)
        elif not settings.revocation:
            with contextlib.suppress(FileNotFoundError):
                place.revoked.unlink()
        write_settings(place, settings)
        if not place.state.exists():
            if place.names() or place.linked():
                raise RunnerError(
                    f"{place.folder} has releases and no state.json; move it away and set it up again", ExitCode.ARTEFACT
                )
            write_state(place, State())
        note(place, "set-up", None, settings.trust)
    return status(place)


def status(place: Place) -> dict[str, Any]:
    """Return how a product stands; what a death has left behind is mended first, unless another process is at work.

    Returns:
        `protocol`, `runner`, `product`, `trust`, `state`, `attempt`, `current`, `linked`, `intact` (whether what is current is
        what was built), `previous`, `releases`, `highest_counter`, `bad`, `reason`, `on_trial`, `busy`, `free_bytes`.
    """
    settings, busy = read_settings(place), False
    try:
        with alone(place):
            state = recovered(place, settings)
    except RunnerError as fault:
        if fault.code != ExitCode.USAGE:
            raise
        state, busy = read_state(place), True
    facts = os.statvfs(str(place.folder))
    return {
        "protocol": PROTOCOL,
        "runner": RUNNER_VERSION,
        "product": settings.product,
        "trust": settings.trust,
        "state": state.state,
        "attempt": state.attempt,
        "current": state.current,
        "linked": place.linked(),
        "intact": None if state.current is None else is_intact(place.release(state.current)),
        "previous": [name for name in state.history if name != state.current],
        "releases": place.names(),
        "highest_counter": state.highest_counter,
        "bad": list(state.bad),
        "reason": state.reason,
        "on_trial": is_tried(place),
        "busy": busy,
        "free_bytes": facts.f_bavail * facts.f_frsize,
    }


def events(place: Place, count: int) -> list[str]:
    """Return the last lines of the log."""
    path = Path(place.log)
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:] if path.exists() else []
