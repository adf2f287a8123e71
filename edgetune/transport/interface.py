"""What a link does: run a command on a machine that has Python, and move files there and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Completed", "Link"]


@dataclass(frozen=True, kw_only=True)
class Completed:
    """How a command ended.

    Attributes:
        returncode: its exit code; negative: the number of the signal that it died of, wherever the link can tell.
        stdout: everything that it wrote there.
        stderr: everything that it wrote there.
        out_of_memory: whether that machine killed a process for memory while the command ran.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    out_of_memory: bool = False


class Link(Protocol):
    """A machine within reach. Every method ends within its deadline, and leaves no process behind on the machine if it fails.

    The connection is made when it is first needed, and anew after it broke. What a command starts in a session of its own
    (`setsid`) outlives it; everything else ends with it, and with this process.
    """

    @property
    def python(self) -> str:
        """The interpreter to run there: a path, or a name that is found there."""

    @property
    def here(self) -> bool:
        """Whether files here are files there under the same paths, so that none needs to be put or got."""

    def describe(self) -> str:
        """Return the machine in a few words, for a report and for messages."""

    def run(
        self,
        command: Sequence[str],
        *,
        deadline_s: float,
        stdin: bytes = b"",
        heard: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run a command there and wait for it.

        Args:
            command: the program and its arguments, as they are: nothing is expanded by a shell.
            deadline_s: after so many seconds the command is ended there and an error is raised.
            stdin: what it reads.
            heard: told each line of its stderr as it is written; it is in the result all the same.

        Raises:
            TargetError: the machine cannot be reached, its host key is not the known one, the link broke, or the deadline
                passed. A command that ran and failed is not an error: its exit code is returned.
        """

    def put(self, source: Path, destination: str, *, deadline_s: float) -> None:
        """Copy a file there, under its final name only once all of it has arrived and has the digest that it has here.

        What an earlier, broken attempt brought over is gone on from if it is the beginning of the file. Folders are created.

        Args:
            source: a file here.
            destination: its path there; absolute.
            deadline_s: for all of it.

        Raises:
            TargetError: as `run`; or there is no space, or the folder cannot be written, there.
        """

    def get(self, source: str, destination: Path, *, deadline_s: float) -> None:
        """Copy a file from there; it appears under its name here once all of it has arrived with the digest that it has there.

        Raises:
            TargetError: as `run`; or there is no such file.
        """

    def close(self) -> None:
        """End the connection, if there is one; calling it twice is fine."""
