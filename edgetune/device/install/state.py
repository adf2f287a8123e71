"""What is committed on a device and how the last attempt stands: `state.json`, replaced whole; and the log of events."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from ..atomic import write_json
from ..digest import SHA256, read_json
from ..exitcodes import ExitCode, RunnerError
from .place import RELEASE, Place

SCHEMA = 1
RECEIVING, VERIFIED, INSTALLED, TRYING = "RECEIVING", "VERIFIED", "INSTALLED", "TRYING"
COMMITTED, ROLLED_BACK, FAILED = "COMMITTED", "ROLLED_BACK", "FAILED"
STATES = (RECEIVING, VERIFIED, INSTALLED, TRYING, COMMITTED, ROLLED_BACK, FAILED)
MOST_BAD = 64
MAX_LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class State:
    """How a product stands on this device.

    Attributes:
        state: of the last attempt; None before the first.
        attempt: the release that it is about; None before the first.
        manifest_sha256: of the attempt's manifest.
        healthy: whether the attempt, being tried, has passed its health check.
        current: the committed release; None before the first.
        history: releases that were committed, the last one first, `current` among them.
        highest_counter: of all that was ever committed; only a higher one is accepted.
        bad: digests of manifests that were taken back.
        reason: why, in a sentence, if the attempt did not end well.
    """

    state: str | None = None
    attempt: str | None = None
    manifest_sha256: str | None = None
    healthy: bool = False
    current: str | None = None
    history: tuple[str, ...] = ()
    highest_counter: int = 0
    bad: tuple[str, ...] = ()
    reason: str = ""

    def with_bad(self) -> tuple[str, ...]:
        """Return the digests that are remembered as bad once the attempt is one of them, the oldest forgotten."""
        others = [digest for digest in self.bad if digest != self.manifest_sha256]
        return tuple([*others, *([self.manifest_sha256] if self.manifest_sha256 else [])][-MOST_BAD:])


def write_state(place: Place, state: State) -> None:
    """Write the state; whoever reads sees the old one or this.

    Raises:
        OSError: it cannot be written.
    """
    write_json(place.state, {"schema": SCHEMA, **asdict(state), "history": list(state.history), "bad": list(state.bad)})


def read_state(place: Place) -> State:
    """Return the state.

    Raises:
        RunnerError: ARTEFACT: the file is missing, or not what `write_state` writes.
    """
    content = read_json(place.state)
    if not _is_state(content):
        raise RunnerError(
            f"{place.state} is not what an installation writes; what current leads to is untouched, set the device up again",
            ExitCode.ARTEFACT,
        )
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items() if key != "schema"
    }
    return State(**values)


def _is_state(content: Any) -> bool:
    if not isinstance(content, dict) or set(content) != {"schema", *asdict(State())} or content["schema"] != SCHEMA:
        return False
    names = [content["attempt"], content["current"]]
    lists = content["history"], content["bad"]
    return (
        content["state"] in (None, *STATES)
        and all(name is None or _matches(RELEASE, name) for name in names)
        and all(isinstance(one, list) for one in lists)
        and all(_matches(RELEASE, name) for name in lists[0])
        and all(_matches(SHA256, digest) for digest in lists[1])
        and (content["manifest_sha256"] is None or _matches(SHA256, content["manifest_sha256"]))
        and type(content["healthy"]) is bool
        and type(content["highest_counter"]) is int
        and isinstance(content["reason"], str)
    )


def _matches(pattern: Any, value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def note(place: Place, event: str, release: str | None, detail: str = "") -> None:
    """Add a line to the log, which keeps its last megabyte or two; a log that cannot be written stops nothing."""
    row = {"clock": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, "release": release, "detail": detail}
    with contextlib.suppress(OSError):
        if place.log.exists() and place.log.stat().st_size > MAX_LOG_BYTES:
            place.log.replace(place.log.with_suffix(".jsonl.1"))
        handle = os.open(str(place.log), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(handle, (json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
            os.fsync(handle)
        finally:
            os.close(handle)
