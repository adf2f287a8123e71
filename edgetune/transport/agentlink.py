"""A link whose far end is the agent: what local and remote links have in common."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgetune.errors import TargetError
from edgetune.files import sha256_file, sync_folder
from edgetune.transport.conversation import Conversation
from edgetune.transport.interface import Completed

__all__ = ["AgentLink"]

CONNECT_S = 60.0
"""For the connection and the start of Python there, on a board that is just waking up."""
GRACE_S = 20.0
"""How much later than the agent itself this end gives a command up."""
PIECE = 1 << 14
OLDEST_PYTHON = (3, 8)


class AgentLink(ABC):
    """Keeps one connection, opened when it is first needed, and opened again after it broke. Several threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._conversation: Conversation | None = None

    @property
    @abstractmethod
    def python(self) -> str:
        """The interpreter to run there."""

    @property
    @abstractmethod
    def here(self) -> bool:
        """Whether that machine is this one, so that a file here is a file there."""

    @abstractmethod
    def describe(self) -> str:
        """Return the machine in a few words."""

    @abstractmethod
    def _open(self) -> Conversation:
        """Start the process that leads to an agent.

        Raises:
            TargetError: it cannot be started.
        """

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        stdin: bytes = b"",
        heard: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command there; see `Link.run`."""
        output: dict[bytes, bytearray] = {b"o": bytearray(), b"e": bytearray()}
        lines = _Lines(heard)
        with self._connected(deadline_s) as (talk, end):
            asked = {"do": "run", "command": list(command), "deadline_s": deadline_s, "stdin_bytes": len(stdin)}
            talk.send(b"r", json.dumps(asked).encode(), end + GRACE_S)
            for start in range(0, len(stdin), PIECE):
                talk.send(b"d", stdin[start : start + PIECE], end + GRACE_S)
            kind, content = talk.next(end + GRACE_S)
            while kind != b"x":
                if kind == b"e":
                    lines.take(content)
                output[kind] += content
                kind, content = talk.next(end + GRACE_S)
            ended = talk.parsed(content)
        lines.end()
        if "error" in ended:
            raise TargetError(f"{command[0]} cannot be run on {self.describe()}: {ended['error']}")
        if ended["timed_out"]:
            raise TargetError(
                f"{Path(command[0]).name} on {self.describe()} did not end within {deadline_s:g} s and was stopped"
            )
        return Completed(
            returncode=int(ended["returncode"]),
            stdout=bytes(output[b"o"]),
            stderr=bytes(output[b"e"]),
            out_of_memory=bool(ended["out_of_memory"]),
        )

    def put(self, source: Path, destination: str, *, deadline_s: float) -> None:
        """Copy a file there; see `Link.put`."""
        size, sha256 = source.stat().st_size, sha256_file(source)
        with self._connected(deadline_s) as (talk, end):
            asked = {"do": "put", "path": destination, "size": size, "sha256": sha256}
            talk.send(b"r", json.dumps(asked).encode(), end)
            kind, content = talk.next(end)
            if kind == b"h":
                there = talk.parsed(content)
                start = int(there["there"]) if _begins(source, int(there["there"]), there["sha256"]) else 0
                talk.send(b"d", json.dumps({"start": start}).encode(), end)
                with source.open("rb") as file:
                    file.seek(start)
                    while (piece := file.read(PIECE)) and not talk.has_news:
                        talk.send(b"d", piece, end)
                kind, content = talk.next(end)
            ended = talk.parsed(content)
        if "error" in ended:
            raise TargetError(f"{source.name} cannot be put on {self.describe()}: {ended['error']}")

    def get(self, source: str, destination: Path, *, deadline_s: float) -> None:
        """Copy a file from there; see `Link.get`."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        handle, temporary = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
        try:
            with os.fdopen(handle, "wb") as file, self._connected(deadline_s) as (talk, end):
                talk.send(b"r", json.dumps({"do": "get", "path": source}).encode(), end)
                kind, content = talk.next(end)
                while kind != b"x":
                    file.write(content)
                    digest.update(content)
                    kind, content = talk.next(end)
                ended = talk.parsed(content)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            if "error" in ended:
                raise TargetError(f"{source} cannot be fetched from {self.describe()}: {ended['error']}")
            if ended["sha256"] != digest.hexdigest():
                raise TargetError(f"{source} of {self.describe()} arrived with another digest")
            Path(temporary).replace(destination)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(destination.parent)

    def close(self) -> None:
        """End the connection, if there is one."""
        with self._lock:
            if self._conversation is not None:
                self._conversation.close()
                self._conversation = None

    @contextmanager
    def _connected(self, deadline_s: float) -> Iterator[tuple[Conversation, float]]:
        """Give the conversation and the deadline of this request; one that did not come to its end is not gone on with."""
        with self._lock:
            try:
                if self._conversation is None:
                    self._conversation = self._open()
                    self._refuse_old(self._conversation.greet(time.monotonic() + CONNECT_S))
                yield self._conversation, time.monotonic() + deadline_s
            except BaseException:
                self.close()
                raise

    def _refuse_old(self, agent: dict[str, Any]) -> None:
        version = tuple(agent["version"])
        if version < OLDEST_PYTHON:
            got, wanted = (".".join(map(str, one)) for one in (version, OLDEST_PYTHON))
            raise TargetError(
                f"{agent['python']} on {self.describe()} is Python {got}; expected {wanted} or newer",
                remedy="name a newer one: ssh://BOARD/usr/local/bin/python3.11",
            )


class _Lines:
    """Cuts what a command says into lines."""

    def __init__(self, heard: Callable[[str], None] | None) -> None:
        self._heard = heard
        self._rest = b""

    def take(self, piece: bytes) -> None:
        if self._heard is not None:
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                self._heard(line.decode("utf-8", "replace"))

    def end(self) -> None:
        if self._heard is not None and self._rest:
            self._heard(self._rest.decode("utf-8", "replace"))


def _begins(source: Path, size: int, sha256: str) -> bool:
    """Return whether the first bytes of a file have a digest."""
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while size > 0 and (piece := file.read(min(size, 1 << 20))):
            digest.update(piece)
            size -= len(piece)
    return size == 0 and digest.hexdigest() == sha256
