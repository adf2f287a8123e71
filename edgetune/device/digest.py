"""Digests of files, strict JSON, and the check that a bundle is exactly what was built."""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .exitcodes import ExitCode, RunnerError

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
MAX_MANIFEST_BYTES = 8 << 20
KNOWN_SCHEMA = 1
SHA256 = re.compile("[0-9a-f]{64}")


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits, reading it in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while True:
            piece = file.read(1 << 20)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)


def parse_json(content: bytes, name: str) -> Any:
    """Return what a JSON text means, if every reader would agree on it.

    Refuses what parsers read differently: duplicate keys, NaN and infinities, numbers that overflow to infinity, and bytes
    that are not UTF-8.

    Args:
        content: the text.
        name: what to call it in an error.

    Raises:
        RunnerError: ARTEFACT.
    """
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as fault:
        raise RunnerError(f"{name} is not UTF-8 text (byte {fault.start})", ExitCode.ARTEFACT) from None
    except (ValueError, RecursionError) as fault:
        reason = "it is nested too deeply" if isinstance(fault, RecursionError) else str(fault)
        raise RunnerError(f"{name} is not valid JSON: {reason}", ExitCode.ARTEFACT) from None


def read_json(path: Path | str, max_bytes: int = MAX_MANIFEST_BYTES) -> Any:
    """Return the content of a JSON file, read as strictly as `parse_json` does.

    Args:
        path: the file.
        max_bytes: a larger file is refused before it is parsed, and no more than this is read.

    Raises:
        RunnerError: ARTEFACT: the file cannot be read, is too large, or is not JSON.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as fault:
        raise RunnerError(f"{path} cannot be read: {fault.strerror}", ExitCode.ARTEFACT) from None
    if len(content) > max_bytes:
        raise RunnerError(f"{path} is larger than the cap of {max_bytes} bytes", ExitCode.ARTEFACT)
    return parse_json(content, str(path))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError("duplicate key " + ", ".join(repr(name) for name in twice))
    return table


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} overflows")
    return value


def check_bundle(folder: Path | str) -> dict[str, Any]:
    """Return the manifest of a bundle after checking that the folder holds exactly what the manifest lists.

    `manifest.json` and `manifest.json.sig` are the only files that the table `files` does not list. The folder itself may be
    reached through a symbolic link; nothing in it may be one.

    Args:
        folder: the bundle.

    Raises:
        RunnerError: ARTEFACT, with every fault: each names its file and says whether it is missing, added or changed.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    table = manifest["files"]
    faults = [*table_faults(table), *_content_faults(folder, table)]
    if faults:
        raise RunnerError(
            f"{folder} is not the bundle that was built; do not use it, fetch it again", ExitCode.ARTEFACT, tuple(faults)
        )
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise RunnerError(f"{folder} is not a folder; expected a bundle", ExitCode.ARTEFACT)
    if path.is_symlink() or not path.is_file():
        raise RunnerError(f"{folder} is not a bundle: {MANIFEST} is missing or not a regular file", ExitCode.ARTEFACT)
    return manifest_of(read_json(path), str(path))


def manifest_of(manifest: Any, name: str) -> dict[str, Any]:
    """Return a parsed manifest if its schema is known and it has a table of files, whatever that says.

    Args:
        manifest: what `parse_json` made of the file.
        name: what to call it in an error.

    Raises:
        RunnerError: ARTEFACT.
    """
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if type(schema) is not int or schema < 1:
        raise RunnerError(f"{name} does not say its schema; expected {KNOWN_SCHEMA}", ExitCode.ARTEFACT)
    if schema > KNOWN_SCHEMA:
        raise RunnerError(
            f"{name} has schema {schema}, newer than {KNOWN_SCHEMA}, the newest that this program knows; use the runner.pyz "
            "of that bundle or a newer edgetune",
            ExitCode.ARTEFACT,
        )
    if not isinstance(manifest.get("files"), dict):
        raise RunnerError(f"{name} has no table of files", ExitCode.ARTEFACT)
    return dict(manifest)


def table_faults(table: dict[str, Any]) -> list[str]:
    """Return what is wrong with a manifest's table of files, a sentence each: names that lead out or collide, no digest."""
    return [*_name_faults(table), *_entry_faults(table)]


def _name_faults(names: Iterable[str]) -> Iterator[str]:
    folded: dict[str, str] = {}
    for name in names:
        reason = _name_fault(name)
        if reason:
            yield f"{name!r} is not a name that a bundle may list: {reason}"
        key = unicodedata.normalize("NFC", name).casefold()
        if key in folded:
            yield f"{name!r} and {folded[key]!r} are one name where case does not count"
        folded[key] = name


def _name_fault(name: str) -> str:
    parts = name.split("/")
    if "\\" in name:
        return "it has a backslash"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "it is absolute"
    if ".." in parts:
        return "it leaves the folder"
    if "" in parts or "." in parts:
        return "it has an empty part"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "it has a control character"
    if name.casefold() in (MANIFEST, SIGNATURE):
        return "it is reserved"
    return ""


def _entry_faults(table: dict[str, Any]) -> Iterator[str]:
    for name, entry in table.items():
        if not _is_entry(entry):
            yield f"{name!r} is listed without a sha256 of 64 hexadecimal digits and a size_bytes"


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    digest, size = entry.get("sha256"), entry.get("size_bytes")
    return isinstance(digest, str) and SHA256.fullmatch(digest) is not None and type(size) is int and size >= 0


def _content_faults(folder: Path, table: dict[str, Any]) -> Iterator[str]:
    # A file is reached through the names that the folder holds, never through those that the manifest claims.
    found = dict(_walk(folder, folder))
    folders = {str(parent) for name in table for parent in PurePosixPath(name).parents}
    for name in table:
        if name not in found and not _name_fault(name):
            yield f"{name} is missing"
    for name, facts in found.items():
        if stat.S_ISLNK(facts.st_mode):
            yield f"{name} is a symbolic link"
        elif stat.S_ISDIR(facts.st_mode) and name not in table:
            if name not in folders:
                yield f"{name}/ was added"
        elif not stat.S_ISREG(facts.st_mode):
            yield f"{name} is not a regular file"
        elif name in table:
            yield from _file_faults(folder / name, name, table[name], facts.st_size)
        elif name not in (MANIFEST, SIGNATURE):
            yield f"{name} was added"


def _file_faults(path: Path, name: str, entry: Any, size_bytes: int) -> Iterator[str]:
    if not _is_entry(entry):
        return
    try:
        same = size_bytes == entry["size_bytes"] and sha256_file(path) == entry["sha256"]
    except OSError as fault:
        yield f"{name} cannot be read: {fault.strerror}"
        return
    if not same:
        yield f"{name} was changed"


def _walk(folder: Path, root: Path) -> Iterator[tuple[str, Any]]:
    """Yield every entry below a folder with its own facts (of a link, not of what it points to)."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as fault:
        raise RunnerError(f"{folder} cannot be read: {fault.strerror}", ExitCode.ARTEFACT) from None
    for entry in entries:
        facts = entry.lstat()
        yield entry.relative_to(root).as_posix(), facts
        if stat.S_ISDIR(facts.st_mode):
            yield from _walk(entry, root)
