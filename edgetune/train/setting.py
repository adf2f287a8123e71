"""Where a run computes: the device, threads, and what to say when memory does not suffice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgetune.device.environment import processor_facts
from edgetune.errors import TargetError, UsageError
from edgetune.train.distributed import world

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import TrainRecipe

__all__ = ["chosen_device", "in_words", "memory_remedy", "resolved_threads"]


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
