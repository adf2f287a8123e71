"""A link to this machine: the same agent, started here."""

from __future__ import annotations

import platform
import sys

from edgetune.errors import TargetError
from edgetune.transport.agentlink import AgentLink
from edgetune.transport.conversation import Conversation, bootstrap

__all__ = ["LocalLink"]


class LocalLink(AgentLink):
    """This machine, perhaps with another interpreter than this process's own.

    Args:
        python: the interpreter to run commands with; the agent itself runs in this process's own.
    """

    def __init__(self, python: str = sys.executable) -> None:
        super().__init__()
        self._python = python

    @property
    def python(self) -> str:
        """The interpreter to run."""
        return self._python

    @property
    def here(self) -> bool:
        """A file here is a file there."""
        return True

    def describe(self) -> str:
        """Return the machine in a few words; never its host name, which says nothing about it to others."""
        other = "" if self._python == sys.executable else f", {self._python}"
        return f"this machine ({platform.machine()}{other})"

    def _open(self) -> Conversation:
        return Conversation([sys.executable, "-I", "-S", "-c", bootstrap()], explain=self._explain, where=self.describe())

    def _explain(self, returncode: int, stderr: str) -> TargetError:
        last = stderr.strip().splitlines()[-1:] or [f"it ended with {returncode}"]
        return TargetError(f"edgetune's agent on {self.describe()} ended early: {last[0]}")
