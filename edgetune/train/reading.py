"""Batches of images from the memory-mapped cache to the device, read ahead where reading would hold the training up."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from edgetune.artefacts import Images

    Rows = npt.NDArray[np.int64]

__all__ = ["Reader"]

# So many batches are read without threads, and timed, before it is decided whether threads would help.
TIMED = 4
WORTH_A_THREAD = 0.02
MOST_THREADS = 8


class Reader:
    """Reads rows of one or more arrays of images, as if these were one after the other.

    Args:
        arrays: uint8 `[N, h, w, K]` each, memory-mapped.
        device: where the batches go; a GPU gets them through pinned memory, without waiting.
    """

    def __init__(self, arrays: Sequence[Images], device: torch.device) -> None:
        self._arrays, self._device = list(arrays), device
        self._read_s = self._used_s = 0.0
        self._timed = 0

    @property
    def threads(self) -> int:
        """How many threads read ahead: by what the first batches took to read and to be used."""
        if self._timed < TIMED or self._read_s < WORTH_A_THREAD * self._used_s:
            return 0
        return min(MOST_THREADS, math.ceil(self._read_s / max(self._used_s, 1e-9)))

    def read(self, rows: Rows) -> torch.Tensor:
        """Return the images of some rows, sorted upwards, in host memory: uint8 `[n, h, w, K]`."""
        import numpy as np
        import torch

        first = len(self._arrays[0])
        # A sorted read is a forward walk through the memory-mapped file.
        parts = [np.array(self._arrays[0][rows[rows < first]])]
        if len(self._arrays) > 1:
            parts.append(np.array(self._arrays[1][rows[rows >= first] - first]))
        images = torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))
        return images.pin_memory() if self._device.type == "cuda" else images

    def stream(self, batches: Sequence[Rows]) -> Iterator[torch.Tensor]:
        """Yield the images of each batch, on the device."""
        remaining = deque(batches)
        while remaining and self._timed < TIMED:
            began = time.perf_counter()
            images = self.read(remaining.popleft())
            read = time.perf_counter()
            yield images.to(self._device)
            # The first batch pays for what is done once.
            if self._timed:
                self._read_s += read - began
                self._used_s += time.perf_counter() - read
            self._timed += 1
        if not self.threads:
            for rows in remaining:
                yield self.read(rows).to(self._device, non_blocking=True)
            return
        yield from self._ahead(remaining)

    def _ahead(self, remaining: deque[Rows]) -> Iterator[torch.Tensor]:
        pending: deque[Future[torch.Tensor]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="edgetune-read") as pool:
            try:
                while remaining or pending:
                    while remaining and len(pending) <= self.threads:
                        pending.append(pool.submit(self.read, remaining.popleft()))
                    yield pending.popleft().result().to(self._device, non_blocking=True)
            finally:
                for future in pending:
                    future.cancel()
