"""Writing files so that a reader, or a power cut, sees the old content or the new one and nothing between."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written to it replaces `path` if the block ends without an error.

    Raises:
        OSError: the file cannot be written; what stood there before still does.
    """
    handle, name = tempfile.mkstemp(dir=str(path.parent), prefix="." + path.name + ".")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    sync_folder(path.parent)


def write_atomic(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a whole file at once.

    Raises:
        OSError: the file cannot be written; what stood there before still does.
    """
    with replacing(path, mode) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs: sorted keys, two spaces, a newline at the end.

    Raises:
        OSError: the file cannot be written.
        ValueError: the value holds NaN or an infinity.
    """
    write_atomic(path, json_text(value).encode("utf-8"))


def json_text(value: Any) -> str:
    """Return a value as the JSON text that every file and `--json` of the runner uses."""
    return json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename that is not synced is lost with the power.

    Raises:
        OSError: the folder cannot be opened or synced.
    """
    # Windows cannot open a folder and needs no sync of it.
    if os.name == "nt":
        return
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
