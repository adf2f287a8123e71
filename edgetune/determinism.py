"""Where torch learns: fixed threads, algorithms and seed, so that the same run gives the same bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["deterministic", "keep_freed_memory", "spin_briefly"]

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**30
SPINS = 10_000


def spin_briefly() -> None:
    """Have torch's threads wait for each other asleep rather than awake; to be called before torch is loaded.

    GNU's OpenMP, which torch comes with, lets a thread that waits look again 300,000 times before it sleeps. Where another
    process wants one of the cores, that takes the time that the thread waited for would need: `tools/bench_shared_cores.py`
    measures what it costs. Whoever set OpenMP's own variables is obeyed. No result depends on it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


@contextmanager
def deterministic(threads: int, seed: int, device: torch.device) -> Iterator[None]:
    """Fix the threads, the algorithms and the seed; what the process had before comes back afterwards."""
    import torch

    threads_before, mode_before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    if device.type == "cuda":
        # Without a fixed workspace cuBLAS may sum in another order; it is read when the GPU is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    else:
        keep_freed_memory()
    torch.set_num_threads(threads)
    # A few CUDA kernels have no deterministic twin: there torch warns instead of giving up.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_deterministic_debug_mode(mode_before)


def keep_freed_memory() -> bool:
    """Tell glibc not to give large blocks back to the kernel; return whether it took the advice.

    A training step allocates and frees the same activations over and over. By default each is mapped anew, and the kernel
    clears every page: `tools/bench_train_step.py` measures what that costs. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))
