"""What is kept: what is current, the good one before it and one more; and what a running program still has open."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from .place import Place, remove
from .state import State, note, write_state

KEPT = 3


def retain(place: Place, state: State) -> list[str]:
    """Remove releases beyond those that are kept, also from the state, and return their names.

    Nothing of what is removed is needed to go back; what cannot be removed is left for the next time.
    """
    kept = {*state.history[:KEPT], state.current, place.linked()}
    removed = []
    for name in place.names():
        if name not in kept and not in_use(place.release(name)):
            with contextlib.suppress(OSError):
                remove(place.release(name))
                removed.append(name)
    history = tuple(name for name in state.history if place.release(name).is_dir())
    if history != state.history:
        with contextlib.suppress(OSError):
            # A name whose folder is gone is passed over on the way back.
            write_state(place, replace(state, history=history))
    if removed:
        note(place, "removed", None, ", ".join(removed))
    return removed


def in_use(folder: Path) -> bool:
    """Return whether a process that this one may look at has a file of a folder open or mapped."""
    begin = str(folder.resolve()) + "/"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(begin in line for line in (process / "maps").read_text(errors="replace").splitlines()):
                return True
            for handle in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(str(handle)).startswith(begin):
                        return True
    return False
