"""A product's folder on the device: what lies where, one process at a time, and the link that is switched at once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..atomic import sync_folder
from ..exitcodes import ExitCode, RunnerError

RELEASE = re.compile("[1-9][0-9]{0,15}-[0-9a-f]{12}")
PATIENCE_S = 2.0
"""How long a command waits for the lock, which the timer takes for an instant now and then."""


@dataclass(frozen=True)
class Place:
    """A product's folder."""

    folder: Path

    @property
    def settings(self) -> Path:
        """What the device decides, not the host."""
        return self.folder / "device.json"

    @property
    def signers(self) -> Path:
        """OpenSSH's allowed signers."""
        return self.folder / "allowed_signers"

    @property
    def revoked(self) -> Path:
        """OpenSSH's list of revoked keys."""
        return self.folder / "revoked_keys"

    @property
    def state(self) -> Path:
        """What is committed, and how the last attempt stands."""
        return self.folder / "state.json"

    @property
    def log(self) -> Path:
        """One line per event."""
        return self.folder / "log.jsonl"

    @property
    def current(self) -> Path:
        """The link that other programs read through."""
        return self.folder / "current"

    @property
    def incoming(self) -> Path:
        """Where files arrive, in a folder per manifest."""
        return self.folder / "incoming"

    @property
    def releases(self) -> Path:
        """Where whole releases stand."""
        return self.folder / "releases"

    def release(self, name: str) -> Path:
        """Return the folder of a release."""
        return self.releases / name

    def linked(self) -> str | None:
        """Return the release that `current` leads to; None if there is no link.

        Raises:
            RunnerError: ARTEFACT: something else stands there.
        """
        try:
            text = os.readlink(str(self.current))
        except OSError as fault:
            if fault.errno == errno.ENOENT:
                return None
            if fault.errno != errno.EINVAL:
                raise
            text = "no link"
        folder, _, name = text.rpartition("/")
        if folder != self.releases.name or not RELEASE.fullmatch(name):
            raise RunnerError(f"{self.current} is no link of an installation ({text}); move it away", ExitCode.ARTEFACT)
        return name

    def switch(self, name: str | None) -> None:
        """Let `current` lead to a release, or to nothing; a reader sees the old release or the new one.

        Raises:
            OSError: the link cannot be written; it leads where it led.
        """
        if self.linked() == name:
            return
        if name is None:
            self.current.unlink()
        else:
            # `ln -sfn` removes and makes; a rename over it does not leave an instant between.
            temporary = self.folder / ".current.new"
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            temporary.symlink_to(f"{self.releases.name}/{name}")
            temporary.replace(self.current)
        sync_folder(self.folder)

    def names(self) -> list[str]:
        """Return the releases that stand there, the highest counter first."""
        found = [path.name for path in self.releases.iterdir() if RELEASE.fullmatch(path.name)]
        return sorted(found, key=lambda name: int(name.partition("-")[0]), reverse=True)


def remove(folder: Path) -> None:
    """Remove a folder so that no half of it is ever taken for a whole: it is renamed first.

    Raises:
        OSError: it cannot be renamed; what cannot be removed afterwards is left for the next time.
    """
    away = folder.parent / (".away-" + folder.name)
    shutil.rmtree(str(away), ignore_errors=True)
    folder.rename(away)
    shutil.rmtree(str(away), ignore_errors=True)


@contextlib.contextmanager
def lock_now(path: Path) -> Iterator[bool]:
    """Hold a file's lock inside the block if nobody else holds it, and say whether; the kernel frees it with the process.

    Raises:
        OSError: the file cannot be opened.
    """
    handle = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(place: Place) -> Iterator[None]:
    """Be the only one that changes a product.

    Raises:
        RunnerError: USAGE: another process is at it.
        OSError: the lock cannot be opened.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        with lock_now(place.folder / "lock") as held:
            if held:
                yield
                return
        if time.monotonic() > end:
            raise RunnerError(f"{place.folder}: another process installs here; wait until it has ended", ExitCode.USAGE)
        time.sleep(0.05)
