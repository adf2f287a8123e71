"""Where and how a run computes: the device, threads, determinism, and what to say when memory does not suffice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgetune.device.environment import processor_facts
from edgetune.errors import TargetError, UsageError
from edgetune.train.distributed import world
from edgetune.train.memory import keep_freed_memory

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import TrainRecipe

__all__ = ["chosen_device", "deterministic", "in_words", "memory_remedy", "resolved_threads"]


def resolved_threads(recipe: TrainRecipe) -> int:
    """Return the number of CPU threads of this process: it decides how sums are split, and so the last bits of the weights."""
    if recipe.threads != "auto":
        return recipe.threads
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, int(processor_facts()["cores"]) // here)


def chosen_device(recipe: TrainRecipe) -> torch.device:
    """Return the device to train on; each process of several has a GPU of its own.

    Raises:
        TargetError: a GPU is asked for and there is none.
    """
    import torch

    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise TargetError("train.device = cuda, but torch finds no GPU here", remedy="use train.device = auto or cpu")
    if recipe.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", world().local_rank)


def in_words(device: torch.device) -> str:
    """Return where a run computes."""
    import torch

    here = world()
    processes = f", {here.size} processes" if here.size > 1 else ""
    if device.type == "cuda":
        return f"on {torch.cuda.get_device_name(device)}{processes}"
    threads = torch.get_num_threads()
    return f"on the CPU with {threads} thread{'s' * (threads > 1)}{processes}"


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


@contextmanager
def memory_remedy(recipe: TrainRecipe) -> Iterator[None]:
    """Say what to do when a GPU's memory does not suffice: another batch size is another run, so it is not changed here."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as fault:
        raise UsageError(
            f"the GPU's memory does not suffice for batches of {recipe.batch_size} images",
            remedy=f"set train.accumulate = {2 * recipe.accumulate} (the result is the same), or train.batch_size = "
            f"{max(2, recipe.batch_size // 2)}, or choose a smaller data.image_size or backbone",
        ) from fault
