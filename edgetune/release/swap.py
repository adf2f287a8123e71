"""Put a finished folder in the place of an older one: a reader sees the old or the new, never a mixture."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgetune.files import file_table, sync_folder

__all__ = ["replacing_folder"]


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside `folder`; it takes that place if the block ends without an error.

    A folder that already holds the same bytes under the same names is left untouched. What a killed run left behind is
    cleared first. The caller keeps other writers away.

    Raises:
        OSError: something cannot be written; what stood in the place still does.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = folder.parent / f".{folder.name}.old"
    _recover(folder, old)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
    new.chmod(0o755)
    try:
        yield new
        _sync(new)
        if folder.exists() and _content(folder) == _content(new):
            shutil.rmtree(new)
        else:
            _swap(folder, new, old)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _recover(folder: Path, old: Path) -> None:
    """Undo a swap that a kill cut in two, and remove folders that were never finished."""
    if old.exists() and not folder.exists():
        old.rename(folder)
    for leftover in (old, *folder.parent.glob(f".{glob.escape(folder.name)}.new-*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _swap(folder: Path, new: Path, old: Path) -> None:
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make every file and name below a folder durable, before a rename promises that they are."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def _content(folder: Path) -> tuple[list[str], object]:
    """Return all names below a folder, empty folders included, and the digests of its files."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")), file_table(folder)
