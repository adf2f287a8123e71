"""The run folder: what each stage left, under the digest of everything that it depends on; and the lock.

::

    RUN/
      lock
      stages/STAGE/KEY/        the files of one value
      stages/STAGE/KEY/stage.json   written last: the value, its files with their digests, what the key was made of

A folder without `stage.json` is unfinished work: most stages start it anew, training resumes from it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edgetune.artefacts import Artefact
from edgetune.errors import Busy, UsageError
from edgetune.files import changed_files, digest_of, file_table, write_json
from edgetune.progress import Progress

__all__ = ["StageCache", "identity", "locked"]

STAGE_FILE = "stage.json"
SCHEMA = 1
# Hashing the decoded images of a large data set would take longer than the build that changes nothing. A file of this size is
# hashed only if its time of writing or its size is another one.
HUGE_BYTES = 2**28

Value = TypeVar("Value", bound=Artefact)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a run folder for this process alone; the lock goes with the process, however it ends.

    Raises:
        UsageError: no such folder can be made.
        Busy: another process holds it.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as fault:
        # Anything else, such as a disk that may not be written, speaks for itself.
        raise UsageError(f"{run} cannot be a run folder: {fault.strerror}", remedy="choose another --output") from fault
    handle = os.open(run / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            raise Busy(
                f"another edgetune works in {run}", remedy="wait until it is done, or choose another --output"
            ) from fault
        yield
    finally:
        os.close(handle)


class StageCache:
    """The values of one run folder.

    Args:
        run: the run folder.
        progress: told what is taken from the cache and what is not.
    """

    def __init__(self, run: Path, progress: Progress) -> None:
        self.root = run / "stages"
        self.progress = progress

    def value(
        self,
        kind: type[Value],
        stage: str,
        depends: Mapping[str, Any],
        compute: Callable[[Path, str], Value],
        *,
        resumes: bool = False,
    ) -> Value:
        """Return the value of a stage: from the cache if everything that it depends on is the same, else computed.

        Args:
            kind: the class of the value.
            stage: the stage's name.
            depends: everything that the value depends on, as JSON types.
            compute: from a folder and the key to the value; writes the value's files there.
            resumes: whether `compute` goes on with what an earlier attempt left in the folder.
        """
        key = digest_of({"schema": SCHEMA, "stage": stage, "depends": depends})
        folder = self.root / stage / key[:16]
        known = self._load(kind, folder)
        if known is not None:
            self.progress.line(f"{stage}: unchanged")
            return known
        if folder.exists() and not resumes:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        value = compute(folder, key)
        files = file_table(folder, exclude=(STAGE_FILE,))
        record = {
            "schema": SCHEMA,
            "stage": stage,
            "depends": depends,
            "files": files,
            "written_ns": {name: (folder / name).stat().st_mtime_ns for name in files},
            "value": value.to_json(),
        }
        write_json(folder / STAGE_FILE, record)
        loaded = self._load(kind, folder)
        if loaded is None:
            raise AssertionError(f"the stage {stage} does not read back what it wrote")
        return loaded

    def _load(self, kind: type[Value], folder: Path) -> Value | None:
        """Return the value in a folder, or None; a folder that is not what it says is put aside and rebuilt."""
        path = folder / STAGE_FILE
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            faults = [] if record["schema"] == SCHEMA else ["another schema"]
            faults += changed_files(
                folder, {name: facts for name, facts in record["files"].items() if _is_due(folder, name, record)}
            )
            value: Value = kind.model_validate(record["value"]).at(folder)
        except (ValueError, KeyError, TypeError, ValidationError) as fault:
            faults = [f"{STAGE_FILE} cannot be read ({type(fault).__name__})"]
        else:
            if not faults:
                return value
        self._quarantine(folder, faults)
        return None

    def _quarantine(self, folder: Path, faults: list[str]) -> None:
        aside = folder.with_name(f"{folder.name}.damaged")
        if aside.exists():
            shutil.rmtree(aside)
        folder.rename(aside)
        self.progress.line(f"warning: {folder.parent.name}/{folder.name} is damaged ({'; '.join(faults[:3])}); it is rebuilt")


def _is_due(folder: Path, name: str, record: Mapping[str, Any]) -> bool:
    """Return whether a file has to be hashed again: not if it is huge, of the same size, and was not written since."""
    try:
        found = (folder / name).stat()
    except OSError:
        return True
    untouched = (found.st_size, found.st_mtime_ns) == (record["files"][name]["size_bytes"], record["written_ns"][name])
    return not untouched or found.st_size <= HUGE_BYTES


def identity(value: Artefact, *, ignore: tuple[str, ...] = ()) -> str:
    """Return the digest that a later stage depends on: of a value and of its files, but for those named.

    Args:
        value: bound to the folder of its stage.
        ignore: files, and fields of the value, that later stages do not read.
    """
    record = json.loads((value.folder / STAGE_FILE).read_text(encoding="utf-8"))
    fields = {name: field for name, field in record["value"].items() if name not in ignore}
    files = {name: facts["sha256"] for name, facts in record["files"].items() if name not in ignore}
    return digest_of({"value": fields, "files": files})
