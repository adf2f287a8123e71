"""What is done on a board before and after a measurement: sent there as text, run by its own Python 3.8 or newer.

Usage: `begin CAP_BYTES AGE_S` makes the cache folder and a scratch folder, throws away what is old, and prints both as JSON;
`end SCRATCH` removes the scratch folder.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_root() -> Path:
    """Return the folder where files that were sent once are kept: $XDG_CACHE_HOME/edgetune, else ~/.cache/edgetune."""
    said = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(said) if said.startswith("/") else Path.home() / ".cache") / "edgetune"


def begin(cap_bytes: int, age_s: float) -> Any:
    """Make the folders, drop what nobody needs any more, and return where they are."""
    root = cache_root()
    for folder in (root / "files", root / "scratch"):
        folder.mkdir(parents=True, exist_ok=True)
    _drop_scratch(root / "scratch")
    _drop_files(root / "files", cap_bytes, age_s)
    # The parent of this process is the agent that will run the measurement: while it lives, its scratch folder is in use.
    scratch = tempfile.mkdtemp(prefix=str(os.getppid()) + "-", dir=str(root / "scratch"))
    return {"files": str(root / "files"), "scratch": scratch}


def _drop_scratch(folder: Path) -> None:
    for scratch in folder.iterdir():
        owner = scratch.name.partition("-")[0]
        if not (owner.isdigit() and Path("/proc", owner).exists()):
            shutil.rmtree(str(scratch), ignore_errors=True)


def _drop_files(folder: Path, cap_bytes: int, age_s: float) -> None:
    """Remove files unused for too long, then the longest unused ones until the rest is small enough."""
    now, kept = time.time(), 0
    for used, size, path in sorted(_files(folder), reverse=True):
        kept += size
        if kept > cap_bytes or now - used > age_s:
            path.unlink()


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    for path in folder.rglob("*"):
        if path.is_file():
            facts = path.stat()
            yield facts.st_mtime, facts.st_size, path


def main(arguments: list[str]) -> int:
    """Do one of the two; a folder that cannot be written is said in one sentence, with exit code 3."""
    try:
        if arguments[0] == "begin":
            sys.stdout.write(json.dumps(begin(int(arguments[1]), float(arguments[2]))))
        else:
            shutil.rmtree(arguments[1], ignore_errors=True)
    except OSError as fault:
        sys.stderr.write(f"{fault.filename or cache_root()}: {fault.strerror}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
