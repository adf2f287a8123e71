"""Arrays on disk, written row by row in little memory.

Rows are written with system calls, not through a memory map: where the disk is full, a write fails with an error that can
be told to a person, a map kills the process with SIGBUS.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Rows", "write_npy"]


class Rows:
    """A scratch array of bytes, uint8 `[count, *row]`; threads may write different rows at once. Deleted when closed.

    Args:
        path: a file that does not exist yet.
        count: the number of rows.
        row: the shape of a row.

    Raises:
        OSError: there is no room for all rows.
    """

    def __init__(self, path: Path, count: int, row: tuple[int, ...]) -> None:
        self._path, self.shape = path, (count, *row)
        self._size = math.prod(row)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self._handle, 0, max(1, count * self._size))
        except BaseException:
            self.close()
            raise

    def put(self, place: int, row: npt.NDArray[np.uint8]) -> None:
        """Write one row.

        Raises:
            OSError: it cannot be written.
        """
        view = memoryview(row.tobytes())
        offset = place * self._size
        while view:
            written = os.pwrite(self._handle, view, offset)
            view, offset = view[written:], offset + written

    def array(self) -> npt.NDArray[np.uint8]:
        """Return the rows, memory-mapped for reading."""
        import numpy as np

        if self.shape[0] == 0:
            return np.zeros(self.shape, np.uint8)
        return np.memmap(self._path, np.uint8, "r", shape=self.shape)

    def close(self) -> None:
        """Delete the rows."""
        os.close(self._handle)
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_npy(path: Path, shape: tuple[int, ...], dtype: str, rows: Iterable[npt.NDArray[np.generic]]) -> None:
    """Write an array in NumPy's format from its rows, and sync it.

    Raises:
        OSError: it cannot be written.
    """
    import numpy as np

    with path.open("wb") as file:
        _write_header(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
        for row in rows:
            file.write(row.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _write_header(file: BinaryIO, header: dict[str, object]) -> None:
    import numpy as np

    np.lib.format.write_array_header_1_0(file, header)
