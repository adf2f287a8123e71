"""The exit codes of every edgetune program, on the host and on the board, and the errors of the runner."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a process that ends tells its caller. Stable: continuous-integration jobs test for these numbers."""

    OK = 0
    UNFORESEEN = 1
    USAGE = 2
    TARGET = 3
    ARTEFACT = 4
    DATA = 5
    BROKEN = 10
    INCONCLUSIVE = 11
    INTERRUPTED = 130


class ImageFault(ValueError):
    """The bytes are not an image that edgetune takes; the text says why and reads on from the file's name."""


class RunnerError(Exception):
    """A fault that the runner foresaw: a text for a person and the exit code for a program.

    Args:
        message: what is wrong, what was got, what was expected and what to do, in that order.
        code: the exit code that the process ends with.
        faults: the single faults behind it, all of them, in a few words each.
    """

    def __init__(self, message: str, code: ExitCode, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.faults = faults

    def __str__(self) -> str:
        """Return the message and all faults, on one line."""
        return self.message + (": " + "; ".join(self.faults) if self.faults else "")
