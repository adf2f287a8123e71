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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgetune.data import NO_TASKS
from edgetune.data.source import Item, Source, open_source
from edgetune.device.heads import default_heads, heads_to_json
from edgetune.files import canonical_json, write_atomic
from edgetune.recipe import DataRecipe, TaskRecipe

__all__ = ["UNREADABLE", "digests_of", "fingerprint", "fingerprint_of", "usable_cores"]

UNREADABLE = "unreadable"
RACY_SECONDS = 2.0
INDEX_SCHEMA = 1


def usable_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fingerprint(recipe: DataRecipe, index_path: Path | None, tasks: Mapping[str, TaskRecipe] = NO_TASKS) -> str:
    """Return a digest of everything that `prepare` would read: names, contents, what is right for each, and splits.

    Args:
        recipe: names the source.
        index_path: a file that remembers the digests of unchanged files between calls; None reads every file.
        tasks: what is to be learnt; none is one class per image.

    Raises:
        DataError: the source cannot be read.
        RecipeError: the tasks are none that such a source can have.
    """
    if recipe.source == "digits" and not tasks and not recipe.unlabelled:
        from edgetune.data.digits import digits_version

        return digits_version()
    source = open_source(recipe, tasks)
    return fingerprint_of(source, digests_of(source, index_path))


def fingerprint_of(source: Source, digests: Sequence[str]) -> str:
    """Return the fingerprint of a source, given what `digests_of` said of it.

    It is built so that what a source does not have (tasks, labels apart from names, unlabelled images) leaves no trace: a
    folder of classes keeps the fingerprint that it always had.
    """
    count = len(source.items)
    files = sorted([item.name, digest] for item, digest in zip(source.items, digests[:count], strict=True))
    content: list[object] = [source.version] if source.version else [list(source.classes), list(source.given), files]
    if source.apart or (source.heads and source.heads != default_heads(source.classes)):
        known = sorted([item.name, item.split or "", _told(item)] for item in source.items)
        content.append([heads_to_json(source.heads), known])
    if source.unlabelled:
        content.append(sorted([item.name, digest] for item, digest in zip(source.unlabelled, digests[count:], strict=True)))
    if content == [source.version]:
        return source.version
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _told(item: Item) -> str:
    """Return what is known of an item as text, so that what is not known can be sorted too."""
    return " ".join(map(repr, item.targets))


def digests_of(source: Source, index_path: Path | None) -> list[str]:
    """Return the sha256 of each item's encoded bytes, or `UNREADABLE`, labelled items first; "" where the version says it.

    Files whose facts are in the index are not read; the index is then brought up to date.
    """
    known = _read_index(index_path) if index_path else {}
    items = source.everything
    facts = [_facts(item) for item in items]
    digests = [_recall(known.get(item.name), fact) for item, fact in zip(items, facts, strict=True)]
    digests = [("" if source.version and not item.path else digest) for item, digest in zip(items, digests, strict=True)]
    missing = [place for place, digest in enumerate(digests) if digest is None]
    now = time.time()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for place, digest in zip(missing, pool.map(_digest, (items[place] for place in missing)), strict=True):
            digests[place] = digest
    complete = [UNREADABLE if digest is None else digest for digest in digests]
    if index_path:
        entries = {
            item.name: [*fact, digest]
            for item, fact, digest in zip(items, facts, complete, strict=True)
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
