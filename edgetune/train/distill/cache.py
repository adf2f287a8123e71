"""What a teacher said, on disk: one record for each view of each image, each with a checksum of its own."""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import DataError, UsageError
from edgetune.files import sync_folder, write_json
from edgetune.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Answers = npt.NDArray[np.float32]
    Rows = npt.NDArray[np.int64]

__all__ = ["AnswerCache", "as_stored"]

SCHEMA = 1
FACTS_FILE, ANSWERS_FILE, LOCK_FILE = "cache.json", "answers.bin", "lock"
REMEDY = "free some space, or set distill.cache = false: the teacher then answers anew each time"


def as_stored(answers: Answers) -> Answers:
    """Return answers `[n, width]` as they come back from a cache: rounded to float16.

    Measured on random teachers with 2 to 1000 classes (logits of standard deviation 1 to 8) and students one logit away from
    them, the gradients of DIST, KL and DKD change by 0.02 to 0.5 %; by 0.1 to 4 % with bfloat16. Files of float32 are twice as
    large.

    Raises:
        DataError: a value is not a number, or beyond the range of float16.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        rounded = answers.astype(np.float16)
    if not np.isfinite(rounded).all():
        largest = float(np.abs(answers).max())
        raise DataError(
            f"the teacher's answers cannot be used: got values up to {largest:g}, expected finite numbers up to 65504",
            remedy="use another teacher: the weights of this one are damaged, or it does not take images as these are",
        )
    return rounded.astype(np.float32)


class AnswerCache:
    """A table of answers `[views, rows, width]` in one file, which several processes of one machine may read and write at once.

    A record is `width` float16 values and their CRC-32, written in one call. One that was never written is all zeros, and the
    CRC-32 of zeros is not zero; one that a kill or a power cut left half written, or that two processes wrote over each other,
    does not have the sum that it says. Neither counts as known. So nothing has to be synced before anything else.

    The number of views is not part of the file: asked for more, it grows and keeps what it has.

    Args:
        folder: of this table alone; made if it does not exist.
        key: what the answers depend on; a file of another key or shape is made anew, and that is said.
        views: how many views of each image there may be.
        rows: images.
        width: numbers per answer.
        progress: told when a file is made anew.

    Raises:
        UsageError: there is no space for the whole table, or the folder cannot be written.
    """

    def __init__(self, folder: Path, key: str, *, views: int, rows: int, width: int, progress: Progress | None = None) -> None:
        import numpy as np

        self.folder, self.key, self.views, self.rows, self.width = folder, key, views, rows, width
        self._record = np.dtype([("answer", "<f2", (width,)), ("sum", "<u4")])
        self._path = folder / ANSWERS_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                self._prepare(progress or Silent())
                self._handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                self._table: Any = np.memmap(self._path, self._record, mode="r", shape=(views, rows))
        except OSError as fault:
            size = views * rows * self._record.itemsize
            raise self._failed(f"cannot be made ({size / 1e6:,.1f} MB for {views} views of {rows} images)", fault) from fault

    def get(self, view: int, rows: Rows) -> tuple[Answers, npt.NDArray[np.bool_]]:
        """Return the answers to one view of some images: float32 `[n, width]`, NaN where not known, and which are known: `[n]`.

        Args:
            view: from 0.
            rows: of the images, `[n]`, in any order, each as often as wanted.

        Raises:
            IndexError: there is no such view or row.
        """
        import numpy as np

        self._require_inside(view, rows)
        records = self._table[view, rows]
        known = np.fromiter(
            (_checksum(answer) == found for answer, found in zip(records["answer"], records["sum"], strict=True)),
            np.bool_,
            len(rows),
        )
        answers = records["answer"].astype(np.float32)
        answers[~known] = np.nan
        return answers, known

    def put(self, view: int, rows: Rows, answers: Answers) -> None:
        """Write the answers to one view of some images.

        Args:
            view: from 0.
            rows: of the images, `[n]`.
            answers: float32 `[n, width]`; rounded to what `as_stored` returns.

        Raises:
            IndexError: there is no such view or row.
            ValueError: the answers have another shape.
            DataError: an answer cannot be stored, see `as_stored`.
            UsageError: the disk is full or fails.
        """
        import numpy as np

        self._require_inside(view, rows)
        if answers.shape != (len(rows), self.width):
            raise ValueError(f"answers: got {answers.shape}, expected {(len(rows), self.width)}")
        records = np.zeros(len(rows), self._record)
        records["answer"] = as_stored(answers)
        records["sum"] = [_checksum(answer) for answer in records["answer"]]
        try:
            for row, record in zip(rows.tolist(), records, strict=True):
                # Not through the memory map: on a full disk that ends the process by a signal.
                _write(self._handle, record.tobytes(), (view * self.rows + row) * self._record.itemsize)
        except OSError as fault:
            raise self._failed("cannot be written", fault) from fault

    def known(self, view: int) -> int:
        """Return how many images one view is known of."""
        import numpy as np

        return int(self.get(view, np.arange(self.rows))[1].sum())

    def close(self) -> None:
        """Let go of the file."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._table = -1, None

    @staticmethod
    def stored_width(folder: Path, key: str) -> int | None:
        """Return the numbers per answer of the table in a folder, or None if there is none of this key."""
        facts = _read_facts(folder)
        return int(facts["width"]) if facts and facts.get("key") == key else None

    def _prepare(self, progress: Progress) -> None:
        """Make the file what it must be, and reserve all of its space: better now than in the middle of a night."""
        wanted = {"schema": SCHEMA, "key": self.key, "rows": self.rows, "width": self.width}
        found = _read_facts(self.folder)
        if found != wanted or not self._path.is_file():
            if found is not None:
                name = self.folder.name
                progress.line(f"warning: {name} does not hold the answers that belong there, and is made anew")
            # A process that still reads the old file keeps it; no file of another shape ever stands under the new facts.
            self._path.unlink(missing_ok=True)
            self._grow()
            sync_folder(self.folder)
            write_json(self.folder / FACTS_FILE, wanted)
        else:
            self._grow()

    def _grow(self) -> None:
        size = self.views * self.rows * self._record.itemsize
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        before = os.fstat(handle).st_size
        try:
            if before < size:
                os.posix_fallocate(handle, 0, size)
        except OSError:
            os.ftruncate(handle, before)  # A disk that is too small is not left full.
            raise
        finally:
            os.close(handle)

    def _require_inside(self, view: int, rows: Rows) -> None:
        if not 0 <= view < self.views or (len(rows) and not 0 <= rows.min() <= rows.max() < self.rows):
            raise IndexError(f"view {view} of some rows: expected views below {self.views} and rows below {self.rows}")

    def _failed(self, problem: str, fault: OSError) -> UsageError:
        return UsageError(f"the file of the teacher's answers {problem}: {self._path}: {fault.strerror}", remedy=REMEDY)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder for this process while its file is made."""
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read_facts(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's file of facts says; empty if it cannot be read, None if there is none."""
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _checksum(answer: npt.NDArray[np.float16]) -> int:
    return zlib.crc32(answer.tobytes())


def _write(handle: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(handle, content, offset)
        content, offset = content[written:], offset + written
