"""Digests, and files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetune.device.digest import sha256_file

__all__ = [
    "canonical_json",
    "changed_files",
    "digest_of",
    "file_table",
    "link_or_copy",
    "sha256_file",
    "sync_folder",
    "write_atomic",
    "write_json",
]


def canonical_json(value: object) -> bytes:
    """Return `value` as the one JSON text that stands for it: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: the value holds NaN or an infinity.
        TypeError: the value holds something that JSON has no word for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def digest_of(value: object) -> str:
    """Return the sha256 of a JSON value, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a power cut, sees the old content or the new one and nothing between.

    Raises:
        OSError: the file cannot be written; what stood there before still does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename that is not synced is lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file for people and programs: sorted keys, two spaces, a newline at the end; atomically."""
    text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomic(path, text.encode() + b"\n")


def link_or_copy(source: Path, target: Path) -> None:
    """Place a copy of `source` at `target`, atomically and with the same bytes."""
    write_atomic(target, source.read_bytes())


def file_table(folder: Path, exclude: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return name → {sha256, size_bytes} of every file below a folder, sorted by name."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return {
        name: {"sha256": sha256_file(folder / name), "size_bytes": (folder / name).stat().st_size}
        for name in names
        if name not in exclude
    }


def changed_files(folder: Path, table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one line for each file of a table that is missing from a folder or has another digest."""
    lines = []
    for name, facts in table.items():
        path = folder / name
        if not path.is_file():
            lines.append(f"{name} is missing")
        elif path.stat().st_size != facts["size_bytes"] or sha256_file(path) != facts["sha256"]:
            lines.append(f"{name} was changed")
    return lines
