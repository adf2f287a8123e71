"""One connection to an agent: frames there and back, signs of life, and deadlines; see `edgetune.transport.agent`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgetune.errors import TargetError

__all__ = ["AGENT", "Conversation", "bootstrap"]

AGENT = Path(__file__).with_name("agent.py")
GREETING = b"\0edgetune-agent-1\n"
MOST_NOISE = 1 << 20
"""Bytes that a login shell may print before the agent greets."""
MOST_CONTENT = 1 << 26
"""Bytes in one frame: more is not a frame, but noise between two of them."""
PIECE = 1 << 16
LIFE_S = 10.0
"""Seconds between two signs of life; the agent wants one in forty."""


def bootstrap() -> str:
    """Return the Python program of one line that reads the agent from its stdin and becomes it."""
    size = AGENT.stat().st_size
    return f'import sys;exec(compile(sys.stdin.buffer.read({size}),"edgetune-agent","exec"))'


class Conversation:
    """A process here whose stdin and stdout lead to an agent.

    Args:
        command: of the process; it runs `bootstrap()` in a Python, wherever that is.
        explain: makes an error of the process's exit code and stderr, once the connection is gone.
        where: the machine, in words.
    """

    def __init__(self, command: Sequence[str], *, explain: Callable[[int, str], TargetError], where: str) -> None:
        self._explain = explain
        self._where = where
        self._arrived = bytearray()
        self._said = time.monotonic()
        # A file: what a chatty server prints can never block on a full pipe.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the conversation
        try:
            # A session of its own: Ctrl-C in the terminal is for this process, which then closes the connection.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, start_new_session=True
            )
        except BaseException:
            self._stderr.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        for handle in (self._stdin, self._stdout):
            os.set_blocking(handle, False)

    def greet(self, end: float) -> dict[str, Any]:
        """Send the agent, wait until it answers, and return who it says it is.

        Args:
            end: the deadline, on the clock of `time.monotonic`.

        Raises:
            TargetError: there is no connection, or no Python that becomes the agent.
        """
        self._write(AGENT.read_bytes(), end)
        while self._arrived.find(GREETING) < 0:
            if len(self._arrived) > MOST_NOISE:
                raise TargetError(f"{self._where} answers with something else than edgetune's agent, and does not stop")
            self._wait(end)
        del self._arrived[: self._arrived.index(GREETING) + len(GREETING)]
        kind, content = self.next(end)
        if kind != b"h":
            raise self._garbled()
        return self.parsed(content)

    def send(self, kind: bytes, content: bytes, end: float) -> None:
        """Send one frame.

        Raises:
            TargetError: the connection broke, or the deadline passed.
        """
        self._write(kind + struct.pack(">I", len(content)) + content, end)

    def next(self, end: float) -> tuple[bytes, bytes]:
        """Wait for the next frame and return its kind and content.

        Raises:
            TargetError: the connection broke, or the deadline passed.
        """
        while True:
            if len(self._arrived) >= 5:
                (size,) = struct.unpack(">I", self._arrived[1:5])
                if size > MOST_CONTENT or self._arrived[0] not in b"hoex":
                    raise self._garbled()
                if len(self._arrived) >= 5 + size:
                    kind, content = bytes(self._arrived[:1]), bytes(self._arrived[5 : 5 + size])
                    del self._arrived[: 5 + size]
                    return kind, content
            self._wait(end)

    @property
    def has_news(self) -> bool:
        """Whether something has arrived that nobody has taken yet."""
        return bool(self._arrived)

    def parsed(self, content: bytes) -> dict[str, Any]:
        """Return the object in a frame.

        Raises:
            TargetError: there is none.
        """
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self._garbled()
        return value

    def close(self) -> None:
        """End the process; the agent ends with its connection, and what it runs with it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._stderr.close()

    def _garbled(self) -> TargetError:
        return TargetError(
            f"{self._where} answers with something else than edgetune's agent",
            remedy="look for commands in its shell's start-up files that print, or that replace the shell",
        )

    def _write(self, content: bytes, end: float) -> None:
        view = memoryview(content)
        while view:
            try:
                view = view[os.write(self._stdin, view[:PIECE]) :]
                self._said = time.monotonic()
            except BlockingIOError:
                self._wait(end, room=True)
            except BrokenPipeError:
                raise self._broken() from None

    def _wait(self, end: float, *, room: bool = False) -> None:
        """Take in what has arrived, waiting until there is something, or room to write, or it is time for a sign of life."""
        now = time.monotonic()
        if now >= end:
            raise TargetError(f"{self._where} did not answer in time: the link stalled, or the machine is too busy")
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        if room:
            poll.register(self._stdin, select.POLLOUT)
        ready = dict(poll.poll(max(0.0, min(end, self._said + LIFE_S) - now) * 1000))
        if self._stdout in ready:
            piece = os.read(self._stdout, PIECE)
            if not piece:
                raise self._broken()
            self._arrived += piece
        if not room and time.monotonic() >= self._said + LIFE_S:
            self._said = time.monotonic()
            # So few bytes go into a pipe whole or not at all; a pipe that is full needs no sign of life.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._stdin, b"." + struct.pack(">I", 0))

    def _broken(self) -> TargetError:
        """Return why the connection is gone, as the process that held it says."""
        try:
            returncode = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            returncode = 0
        self._stderr.seek(0)
        return self._explain(returncode, self._stderr.read().decode("utf-8", "replace"))
