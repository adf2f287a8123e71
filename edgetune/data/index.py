"""The digests of a source's files, remembered by their facts, so that unchanged files are read once and never again.

As in Git's index, a file's facts (size, times of modification and change, inode) stand for its content, with Git's
exception: a file modified within the last two seconds before it was read may change again without its time changing,
so its digest is not remembered, and the file is read again next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgetune.data.source import Item, Source, open_source
from edgetune.files import canonical_json, write_atomic
from edgetune.recipe import DataRecipe

__all__ = ["UNREADABLE", "digests_of", "fingerprint", "fingerprint_of", "usable_cores"]

UNREADABLE = "unreadable"
RACY_SECONDS = 2.0
INDEX_SCHEMA = 1


def usable_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fingerprint(recipe: DataRecipe, index_path: Path | None) -> str:
    """Return a digest of everything that `prepare` would read: names, contents, classes and splits.

    Args:
        recipe: names the source.
        index_path: a file that remembers the digests of unchanged files between calls; None reads every file.

    Raises:
        DataError: the source cannot be read.
    """
    if recipe.source == "digits":
        from edgetune.data.digits import digits_version

        return digits_version()
    source = open_source(recipe)
    return fingerprint_of(source, digests_of(source, index_path))


def fingerprint_of(source: Source, digests: Sequence[str]) -> str:
    """Return the fingerprint of a folder, given its files' digests in the order of its items."""
    files = sorted([item.name, digest] for item, digest in zip(source.items, digests, strict=True))
    return hashlib.sha256(canonical_json([list(source.classes), list(source.given), files])).hexdigest()


def digests_of(source: Source, index_path: Path | None) -> list[str]:
    """Return the sha256 of each item's encoded bytes, or `UNREADABLE`, in the order of the items.

    Files whose facts are in the index are not read; the index is then brought up to date.
    """
    known = _read_index(index_path) if index_path else {}
    facts = [_facts(item) for item in source.items]
    digests = [_recall(known.get(item.name), fact) for item, fact in zip(source.items, facts, strict=True)]
    missing = [place for place, digest in enumerate(digests) if digest is None]
    now = time.time()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for place, digest in zip(missing, pool.map(_digest, (source.items[place] for place in missing)), strict=True):
            digests[place] = digest
    complete = [digest or UNREADABLE for digest in digests]
    if index_path:
        entries = {
            item.name: [*fact, digest]
            for item, fact, digest in zip(source.items, facts, complete, strict=True)
            if item.status and item.status.st_mtime < now - RACY_SECONDS and digest != UNREADABLE
        }
        if entries != known:
            write_atomic(index_path, json.dumps({"schema": INDEX_SCHEMA, "files": entries}).encode())
    return complete


def _digest(item: Item) -> str:
    try:
        return hashlib.sha256(item.read()).hexdigest()
    except OSError:
        return UNREADABLE


def _facts(item: Item) -> list[int]:
    status = item.status
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev] if status else []


def _recall(entry: Any, fact: list[int]) -> str | None:
    return entry[-1] if isinstance(entry, list) and entry[:-1] == fact and fact and isinstance(entry[-1], str) else None


def _read_index(path: Path) -> dict[str, Any]:
    """Return the remembered entries; an index that is missing or damaged remembers nothing."""
    try:
        content = json.loads(path.read_bytes())
        files = content["files"] if content["schema"] == INDEX_SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return files if isinstance(files, dict) else {}
