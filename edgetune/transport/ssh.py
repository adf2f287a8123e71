"""A link through the system's `ssh`: its configuration, agent, known hosts and jump hosts are the user's own."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from edgetune.errors import TargetError, UsageError
from edgetune.transport.agentlink import AgentLink
from edgetune.transport.conversation import Conversation, bootstrap

__all__ = ["CONFIG_VARIABLE", "SshLink"]

CONFIG_VARIABLE = "EDGETUNE_SSH_CONFIG"
"""The environment variable that names a file for `ssh -F`, read instead of ~/.ssh/config."""
ALIVE_S = 10
ALIVE_COUNT = 3
OPTIONS = {
    "BatchMode": "yes",  # nobody is there to answer a question
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": str(ALIVE_S),
    "ServerAliveCountMax": str(ALIVE_COUNT),
    "LogLevel": "INFO",  # what goes wrong is read from there
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "ControlMaster": "no",  # a master that the user has is shared, but none is left behind
    "EscapeChar": "none",
}
"""What must not be another way, whatever the user's configuration says."""

KNOW = (
    "compare its fingerprint with the board's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), then connect once: "
    "{ssh}"
)
FAULTS: tuple[tuple[str, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {board} is not the one that is known: another machine answers there, or it was set up anew",
        "if it was, forget the old key: ssh-keygen -R {name}; then " + KNOW,
    ),
    (r"revoked", "the host key of {board} is marked as revoked", "do not connect; ask who revoked it"),
    (r"Host key verification failed|No \S+ host key is known", "the host key of {board} is not known here", KNOW),
    (
        r"Could not resolve hostname",
        "the name of {board} cannot be resolved",
        "check the address, or give an alias of ~/.ssh/config",
    ),
    (
        r"Permission denied",
        "{board} does not let this user in ({last})",
        "edgetune asks for no password: put a key there (ssh-copy-id), and hold it in ssh-agent if it has a passphrase",
    ),
    (r"Connection refused", "nothing listens for SSH at {board}", "check the port, and that the board's SSH server runs"),
    (
        r"Connection timed out|Operation timed out|No route to host|Network is unreachable|Host is down",
        "{board} cannot be reached ({last})",
        "check that it is switched on and in this network",
    ),
    (
        r"Timeout, server .* not responding",
        "the link to {board} stalled: it sent no sign of life for {alive} s",
        "try again, what was sent so far is kept there; a board with too little memory may also be too busy to answer",
    ),
    (
        r"Bad configuration option|no argument after keyword|terminating, \d+ bad configuration",
        "ssh does not accept its configuration ({last})",
        "mend ~/.ssh/config",
    ),
    (r"Can't open user config file", "ssh cannot read its configuration ({last})", f"check {CONFIG_VARIABLE}"),
    (
        r"(?:not found|No such file or directory|Unknown command)",
        "there is no {python} on {board}",
        "install Python 3.8 or newer there, or name one: {address}/path/to/python3",
    ),
    (
        r"Connection reset|Connection closed|closed by remote host|Broken pipe|Connection aborted",
        "the link to {board} broke ({last})",
        "try again: what was sent so far is kept there",
    ),
)
"""What ssh, or the shell there, says → what it means and what to do. The first that matches counts."""


class SshLink(AgentLink):
    """A machine that `ssh` reaches.

    Args:
        host: a name, an address, or an alias of the user's configuration.
        user: the user there; None for what the configuration says.
        port: likewise.
        python: the interpreter to run there.

    Raises:
        UsageError: the host or the user is none that ssh would take for one.
    """

    def __init__(self, host: str, *, user: str | None = None, port: int | None = None, python: str = "python3") -> None:
        super().__init__()
        for what, text in (("host", host), ("user", user)):
            # Never an option, nor anything that the configuration's %h and %r would bring to a shell.
            if text is not None and not re.fullmatch(r"[A-Za-z0-9_\[:][A-Za-z0-9_.:%@\]-]*", text):
                raise UsageError(f"got {text!r} for the {what} of a board, expected a name or an address")
        self._host, self._user, self._port, self._python = host, user, port, python

    @property
    def python(self) -> str:
        """The interpreter to run there."""
        return self._python

    @property
    def here(self) -> bool:
        """Files have to be sent, also where the board is this machine."""
        return False

    @property
    def address(self) -> str:
        """The board as a URL, without its interpreter."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        user = f"{self._user}@" if self._user else ""
        return f"ssh://{user}{host}{f':{self._port}' if self._port else ''}"

    def describe(self) -> str:
        """Return the board's address."""
        return self.address

    def command(self, remote: str) -> list[str]:
        """Return the command line that has the board's shell run a line of text."""
        config = os.environ.get(CONFIG_VARIABLE)
        return [
            "ssh",
            *(("-F", str(Path(config).expanduser())) if config else ()),
            *(f"-o{key}={value}" for key, value in OPTIONS.items()),
            *(("-p", str(self._port)) if self._port else ()),
            *(("-l", self._user) if self._user else ()),
            "-T",
            "--",
            self._host,
            remote,
        ]

    def _open(self) -> Conversation:
        # Nothing in the program needs another quoting in one shell than in another.
        remote = f"exec {shlex.quote(self._python)} -I -S -c '{bootstrap()}'"
        try:
            return Conversation(self.command(remote), explain=self._explain, where=self.describe())
        except FileNotFoundError:
            raise TargetError(
                "there is no program ssh on this machine", remedy="install OpenSSH's client: apt install openssh-client"
            ) from None

    def _explain(self, returncode: int, stderr: str) -> TargetError:
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        words = {
            "board": self.address,
            "address": self.address,
            "python": self._python,
            "last": lines[-1].rstrip(".") if lines else f"ssh ended with {returncode}",
            "alive": str(ALIVE_S * ALIVE_COUNT),
            "name": shlex.quote(f"[{self._host}]:{self._port}" if self._port else self._host),
            "ssh": shlex.join(
                [
                    "ssh",
                    *(["-p", str(self._port)] if self._port else []),
                    f"{self._user}@{self._host}" if self._user else self._host,
                ]
            ),
        }
        for pattern, message, remedy in FAULTS:
            if re.search(pattern, stderr):
                return TargetError(message.format(**words), remedy=remedy.format(**words))
        return TargetError(f"the link to {self.address} broke ({words['last']})", remedy="try: " + words["ssh"])
