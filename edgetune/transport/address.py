"""Addresses of devices, as users write them: `local`, `python:PATH`, `ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON]`."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgetune.errors import UsageError
from edgetune.transport.interface import Link
from edgetune.transport.local import LocalLink
from edgetune.transport.ssh import SshLink

__all__ = ["EXPECTED", "open_link"]

EXPECTED = "local, python:PATH, or ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON]"


def open_link(address: str) -> Link:
    """Return the link that an address names; nothing is connected yet.

    Raises:
        UsageError: it is not an address, or names an interpreter that is not here.
    """
    if address == "local":
        return LocalLink()
    if address.startswith("python:"):
        return LocalLink(_interpreter(address))
    if address.startswith("ssh://"):
        return _ssh(address)
    raise UsageError(f"device: got {address!r}, expected {EXPECTED}")


def _interpreter(address: str) -> str:
    name = address.removeprefix("python:")
    found = shutil.which(str(Path(name).expanduser()) if "/" in name else name) if name else None
    if found is None:
        raise UsageError(f"device: {address!r} names no program that can be run here", remedy=f"give {EXPECTED}")
    return str(Path(found).absolute())


def _ssh(address: str) -> SshLink:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as fault:
        raise UsageError(f"device: {address!r} is not an address: {fault}", remedy=f"give {EXPECTED}") from None
    if not host or parts.query or parts.fragment or port == 0:
        raise UsageError(f"device: got {address!r}, expected {EXPECTED}")
    if parts.password is not None:
        raise UsageError("device: an address holds no password", remedy="use a key: ssh-copy-id puts one on the board")
    # urlsplit makes the host lower-case, and an alias of the configuration may not be.
    at = parts.netloc.rpartition("@")[2].lower().index(host)
    host = parts.netloc.rpartition("@")[2][at : at + len(host)]
    path = unquote(parts.path)
    return SshLink(
        host,
        user=unquote(parts.username) if parts.username else None,
        port=port,
        python=path if path not in ("", "/") else "python3",
    )
