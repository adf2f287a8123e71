"""Several devices at once: which they are, and how they work side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from edgetune.errors import EdgetuneError, UsageError
from edgetune.progress import Progress
from edgetune.schema import SchemaVersion, Strict, read_toml, validate

__all__ = ["at_once", "devices_of"]

Value = TypeVar("Value")
POLL_S = 0.2


class Fleet(Strict):
    """The file that names devices."""

    schema_: SchemaVersion = Field(alias="schema")
    """The version of this file's layout."""
    devices: dict[str, str] = Field(min_length=1)
    """Name → address, as --device takes it."""


def devices_of(addresses: Sequence[str], fleet: Path | None) -> Mapping[str, str]:
    """Return name → address of the devices that a command line names; an address is its own name.

    Raises:
        UsageError: a device stands there twice, or the file has faults.
    """
    found = dict(validate(Fleet, read_toml(fleet, UsageError), str(fleet), UsageError).devices) if fleet else {}
    for address in addresses:
        if address in found:
            raise UsageError(f"the device {address} is named twice")
        found[address] = address
    return found


def at_once(
    names: Sequence[str], work: Callable[[str, Progress], Value], progress: Progress
) -> dict[str, Value | EdgetuneError]:
    """Do the same for several devices, each in a thread of its own.

    Args:
        names: of the devices.
        work: what is done for one of them; told its name and where to say how far it is.
        progress: told what all of them say. One device says it as it is; several have a label and a prefix each.

    Returns:
        What came of each, in the order of the names; an error of ours stands in the value's place.

    Raises:
        Exception: of the first device that ended with anything else.
    """
    if len(names) == 1:
        try:
            return {names[0]: work(names[0], progress)}
        except EdgetuneError as fault:
            return {names[0]: fault}
    lock = threading.Lock()
    found: dict[str, Value | EdgetuneError] = {}
    bugs: list[BaseException] = []

    def one(name: str) -> None:
        talk = _Named(name, progress, lock)
        try:
            found[name] = work(name, talk)
        except EdgetuneError as fault:
            found[name] = fault
            talk.line(fault.message)
        except BaseException as bug:
            bugs.append(bug)

    # Daemons: a signal ends this process without waiting for them, and with it, what runs on the devices.
    threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(POLL_S)
    if bugs:
        raise bugs[0]
    return {name: found[name] for name in names}


class _Named:
    """What one device of several says: each sentence with its name before it, and all its steps under one label."""

    def __init__(self, name: str, progress: Progress, lock: threading.Lock) -> None:
        self._name, self._progress, self._lock = name, progress, lock

    def line(self, text: str) -> None:
        with self._lock:
            self._progress.line(f"{self._name}: {text}")

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        with self._lock:
            self._progress.advance(self._name, done, total, note)
