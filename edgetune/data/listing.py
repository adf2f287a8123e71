"""What lies below a folder: images and folders in a stable order, and everything that was passed over, with the reason.

Nothing here opens a file. A name that is a link is followed, unless it leads nowhere or back above itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "UNNAMEABLE", "Folder", "Found", "Tree", "shown", "suffixes_for"]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Files with other suffixes are passed over. What a file really is, its content says, when it is decoded."""
ARRAY_SUFFIX = ".npy"
UNREAD_SUFFIXES = frozenset({".avif", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".raw", ".svg"})
SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx", "$recycle.bin", "icon\r"})
UNNAMEABLE = "a folder whose name is not UTF-8"
Chain = tuple[tuple[int, int], ...]


def shown(name: str) -> str:
    """Return a file's name as printable text: bytes that are no UTF-8, and control characters, as escapes."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def suffixes_for(channels: int) -> frozenset[str]:
    """Return what the names of images end in, where images have so many channels.

    Beside RGB images, .npy files are masks, features and the like: there they are passed over. For another number of channels
    they are the images, and an encoded image among them is no stranger to be passed over but a fault to be named.
    """
    return IMAGE_SUFFIXES if channels == 3 else IMAGE_SUFFIXES | {ARRAY_SUFFIX}


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder, with the identities of itself and of all folders above it: a link back to one of them is a loop."""

    name: str
    path: str
    chain: Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image file: its name below the source, its path, and its facts at the time of listing."""

    name: str
    path: str
    status: os.stat_result


@dataclass(kw_only=True)
class Tree:
    """Walks a source folder.

    Attributes:
        root: the folder.
        suffixes: what the names of images end in.
        skipped: name below the source → why it was passed over.
        outside: links that lead out of the source, and were followed.
    """

    root: Path
    suffixes: frozenset[str] = IMAGE_SUFFIXES
    skipped: dict[str, str] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)

    def top(self) -> Folder:
        """Return the source folder itself.

        Raises:
            OSError: it cannot be read.
        """
        real = self.root.resolve()
        chain = tuple((s.st_dev, s.st_ino) for s in (p.stat() for p in (real, *real.parents)))
        with os.scandir(real):
            return Folder(name="", path=str(self.root), chain=chain)

    def entries(self, folder: Folder) -> tuple[list[Folder], list[Found]]:
        """Return the folders and the image files directly in a folder, sorted by name."""
        try:
            with os.scandir(folder.path) as scan:
                listed = sorted(scan, key=lambda entry: entry.name)
        except OSError as fault:
            self.skipped[shown(folder.name)] = f"cannot be listed: {fault.strerror}"
            return [], []
        folders, files = [], []
        for entry in listed:
            name = f"{folder.name}/{entry.name}" if folder.name else entry.name
            thing = self._look(entry, name, folder)
            if isinstance(thing, Folder):
                folders.append(thing)
            elif isinstance(thing, Found):
                files.append(thing)
            else:
                self.skipped[shown(name)] = thing
        return folders, files

    def images(self, folder: Folder) -> Iterator[Found]:
        """Yield the image files in a folder and in all folders below it."""
        waiting = [folder]
        while waiting:
            folders, files = self.entries(waiting.pop())
            waiting += reversed(folders)
            yield from files

    def _look(self, entry: os.DirEntry[str], name: str, parent: Folder) -> Folder | Found | str:
        """Return what an entry is, or why it is passed over."""
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
            return "a hidden or system file"
        if not _is_utf8(entry.name):
            return UNNAMEABLE if entry.is_dir() else "its name is not UTF-8"
        try:
            status = entry.stat()
        except OSError as fault:
            return "a link that leads nowhere or to itself" if entry.is_symlink() else f"cannot be read: {fault.strerror}"
        if stat.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if identity in parent.chain:
                return "a link to a folder above it (a loop)"
            self._note_outside(entry, name)
            return Folder(name=name, path=entry.path, chain=(identity, *parent.chain))
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - called for every file, and Path is slow
        if suffix not in self.suffixes:
            return _no_image(suffix)
        self._note_outside(entry, name)
        return Found(name=name, path=entry.path, status=status)

    def _note_outside(self, entry: os.DirEntry[str], name: str) -> None:
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(self.root.resolve()):
            self.outside.append(shown(name))


def _no_image(suffix: str) -> str:
    if suffix in UNREAD_SUFFIXES:
        return f"images of the format {suffix} are not read; convert them to PNG or JPEG"
    if suffix == ARRAY_SUFFIX:
        return "an array: .npy files are images where data.channels is not 3, or where a manifest names them"
    return f"not an image by its suffix {shown(suffix)}" if suffix else "not an image: it has no suffix"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
