"""What this host knows of its own shipments: who it is to a device, and that it ships to each one once at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgetune.errors import Busy
from edgetune.files import write_atomic

__all__ = ["alone_at", "shipper"]


def _folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = Path(base).expanduser() / "edgetune" / "ship"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shipper() -> str:
    """Return 32 hexadecimal digits by which devices tell this host from others; drawn once."""
    path = _folder() / "host"
    text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
    if len(text) != 32:
        text = secrets.token_hex(16)
        write_atomic(path, text.encode())
    return text


@contextmanager
def alone_at(device: str, place: str) -> Iterator[None]:
    """Be the only process of this host that ships to a place on a device.

    Raises:
        Busy: another one does.
    """
    name = hashlib.sha256(f"{device} {place}".encode()).hexdigest()[:16]
    path = _folder() / f"{name}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process ships to {place} on {device}", remedy="wait for it, or end it") from None
        yield
