"""Where a measurement takes place: this machine's own files, or copies of them on a board, kept there by digest."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from edgetune.errors import TargetError
from edgetune.files import digest_of, file_table, sha256_file
from edgetune.transport.interface import Link

__all__ = ["Site", "open_site"]

HOUSEKEEPING = Path(__file__).with_name("housekeeping.py")
CACHE_BYTES = 2 << 30
"""Files that were sent are kept on a board up to this size altogether …"""
CACHE_AGE_S = 30 * 86400
"""… and so long after they were last used."""
SHORT_S = 60.0
SLOWEST_LINK = 20_000
"""Bytes per second below which a link is not waited for."""


class Site(Protocol):
    """The paths of one measurement, as the machine that measures knows them."""

    @property
    def out(self) -> str:
        """The folder for the results."""

    def file(self, path: Path) -> str:
        """Return where a file is there, after taking it there if need be."""

    def folder(self, path: Path) -> str:
        """Return where a folder is there; see `file`."""

    def note(self, name: str, content: bytes) -> str:
        """Write a small file that is gone after the measurement, and return where it is."""

    def fetch(self, name: str) -> None:
        """Bring a result into the folder here that was named when the site was opened; one that is not there is left out."""


@contextmanager
def open_site(link: Link, out: Path, say: Callable[[str], None]) -> Iterator[Site]:
    """Give a place to measure, and tidy it up afterwards.

    Args:
        link: to the machine.
        out: the folder here that receives the results.
        say: told what is sent, where that may take a while.

    Raises:
        TargetError: the machine cannot be reached, or has no folder that can be written.
    """
    if link.here:
        with tempfile.TemporaryDirectory(prefix="edgetune-") as scratch:
            yield _Here(Path(scratch), out)
        return
    found = _housekeeping(link, "begin", str(CACHE_BYTES), str(CACHE_AGE_S))
    try:
        places = json.loads(found)
        there = _There(link, places["files"], places["scratch"], out, say)
    except (ValueError, TypeError, KeyError) as fault:
        raise TargetError(f"{link.describe()} does not say where files can be kept: {fault}") from fault
    try:
        yield there
    finally:
        # Where the link is gone, the next measurement finds the folder without its owner and removes it.
        with contextlib.suppress(TargetError):
            _housekeeping(link, "end", places["scratch"])


def _housekeeping(link: Link, *arguments: str) -> str:
    """Run the program that keeps the folders of a board, and return what it says."""
    program = HOUSEKEEPING.read_bytes()
    done = link.run([link.python, "-I", "-S", "-", *arguments], stdin=program, deadline_s=SHORT_S)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise TargetError(
            f"{link.describe()} has no folder for what has to be sent there: {said[0]}",
            remedy="make it writable, or name another one there in XDG_CACHE_HOME",
        )
    return done.stdout.decode("utf-8", "replace")


class _Here:
    """This machine: files are where they are."""

    def __init__(self, scratch: Path, out: Path) -> None:
        self._scratch = scratch
        self.out = str(out.resolve())

    def file(self, path: Path) -> str:
        return str(path.resolve())

    folder = file

    def note(self, name: str, content: bytes) -> str:
        path = self._scratch / name
        path.write_bytes(content)
        return str(path)

    def fetch(self, name: str) -> None:
        """It is there already."""


class _There:
    """A board: files are sent once, and found again by their digests."""

    def __init__(self, link: Link, files: str, scratch: str, out: Path, say: Callable[[str], None]) -> None:
        self._link, self._files, self._scratch = link, PurePosixPath(files), PurePosixPath(scratch)
        self._here, self._say = out, say
        self.out = str(self._scratch / "out")

    def file(self, path: Path) -> str:
        return self._put(path, self._files / f"{sha256_file(path)}{path.suffix}")

    def folder(self, path: Path) -> str:
        table = file_table(path)
        place = self._files / digest_of(table)
        for name in table:
            self._put(path / name, place / name)
        return str(place)

    def note(self, name: str, content: bytes) -> str:
        with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            return self._put(path, self._scratch / name)

    def fetch(self, name: str) -> None:
        source = str(PurePosixPath(self.out) / name)
        size = self._link.run([self._link.python, "-I", "-S", "-c", SIZE, source], deadline_s=SHORT_S).stdout.strip()
        if size.isdigit():
            self._link.get(source, self._here / name, deadline_s=SHORT_S + int(size) / SLOWEST_LINK)

    def _put(self, path: Path, place: PurePosixPath) -> str:
        size = path.stat().st_size
        if size >= 1 << 20:
            self._say(f"{path.name} ({size / 1e6:.1f} MB) to {self._link.describe()}")
        self._link.put(path, str(place), deadline_s=SHORT_S + size / SLOWEST_LINK)
        return str(place)


SIZE = "import os,sys; print(os.path.getsize(sys.argv[1]) if os.path.isfile(sys.argv[1]) else '')"
