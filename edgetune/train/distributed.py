"""Several processes that train one network: who they are, and what they tell each other.

Started by `torchrun`, every process runs the same command. Rank 0 does everything that is done once; the others wait in `share`
until it calls them to train, and go when it shares nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from edgetune.errors import Interrupted, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "World",
    "agreed",
    "anyone",
    "averaged",
    "dismissing",
    "gather",
    "gathered",
    "joined",
    "mean_gradients",
    "mean_statistics",
    "on_first",
    "share",
    "together",
    "world",
]

# Rank 0 may decode many images before it needs the others.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes:
        rank: of this one, from 0.
        size: how many there are.
        local_rank: among those on this machine; the number of the GPU that is this process's own.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def world() -> World:
    """Return this process's place, as torchrun set it; a process on its own is the whole world."""
    try:
        places = [int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))]
    except ValueError as fault:
        raise UsageError(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers: {fault}", remedy="start with torchrun") from fault
    return World(*places)


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the group of processes, if there are several, and leave it at the end.

    Args:
        device: `cpu` for gloo alone; `cuda`, or `auto` where there are GPUs, for gradients by NCCL.
    """
    here = world()
    if here.size == 1:
        yield here
        return
    import torch
    import torch.distributed as dist

    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(here.local_rank)
    # Objects travel by gloo, which needs no GPU; tensors of gradients by NCCL where there are GPUs.
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=_meeting_place(), rank=here.rank, world_size=here.size, timeout=PATIENCE)
    try:
        yield here
    finally:
        dist.destroy_process_group()


def _meeting_place() -> Any:
    """Return where the processes of this attempt find each other.

    With a --master-port torchrun keeps one store for all attempts, in which a restart would find the addresses of the dead, and
    wait for them. Where there is one agent, all processes know which attempt it is.
    """
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return store


def share(value: Any) -> Any:
    """Return rank 0's value, in every process."""
    if world().size == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(part: torch.Tensor) -> torch.Tensor:
    """Return all processes' parts, one after the other by rank, on the CPU; their lengths may differ."""
    if world().size == 1:
        return part
    import torch
    import torch.distributed as dist

    boxes: list[Any] = [None] * world().size
    dist.all_gather_object(boxes, part.cpu())
    return torch.cat(boxes)


def anyone(flag: bool) -> bool:
    """Return whether any process says yes."""
    if world().size == 1:
        return flag
    import torch
    import torch.distributed as dist

    box = torch.tensor([float(flag)])
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return bool(box.item())


def averaged(value: float) -> float:
    """Return the mean of all processes' numbers, in every process; not a number if one of them is none."""
    if world().size == 1:
        return value
    import torch
    import torch.distributed as dist

    box = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(box)
    return float(box.item()) / world().size


def on_first() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return world().rank == 0


def agreed(value: float) -> float:
    """Return rank 0's number, in every process."""
    if world().size == 1:
        return value
    import torch
    import torch.distributed as dist

    box = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(box, src=0)
    return float(box.item())


def gathered(part: torch.Tensor) -> torch.Tensor:
    """Return all processes' rows `[n, ...]`, one after the other by rank; gradients flow back to the process they belong to."""
    import torch
    import torch.distributed as dist

    class AllGather(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, own: torch.Tensor) -> torch.Tensor:
            parts = [torch.empty_like(own) for _ in range(world().size)]
            dist.all_gather(parts, own.contiguous())
            return torch.cat(parts)

        @staticmethod
        def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            summed = gradient.contiguous()
            dist.all_reduce(summed)
            return summed.chunk(world().size)[world().rank]

    result: torch.Tensor = AllGather.apply(part)
    return result


def mean_gradients(module: nn.Module) -> None:
    """Give every process the mean of the gradients of a module that is not wrapped for that."""
    if world().size == 1:
        return
    import torch.distributed as dist

    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad.div_(world().size)


def mean_statistics(network: nn.Module) -> None:
    """Give every process the mean of the running statistics of the batch norms that follow the images."""
    if world().size == 1:
        return
    import torch
    import torch.distributed as dist
    from torch import nn

    norms = [one for one in network.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training]
    buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False) if buffer.is_floating_point()]
    if buffers:
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(flat)
        flat /= world().size
        for buffer in buffers:
            mean, flat = flat[: buffer.numel()], flat[buffer.numel() :]
            buffer.copy_(mean.view_as(buffer))


@contextmanager
def together() -> Iterator[None]:
    """Say that all processes are in the same work: if it fails, it fails in all of them.

    Raises:
        Interrupted: another process is gone, so that this one cannot go on.
    """
    global _together
    _together = True
    try:
        yield
    except RuntimeError as fault:
        if world().size == 1 or not _is_of_the_group(fault):
            raise
        raise Interrupted(
            "another process of the training is gone, so this one cannot go on",
            remedy="start again, with torchrun --max-restarts to do so by itself: it resumes from the last state",
        ) from fault
    _together = False


def _is_of_the_group(fault: RuntimeError) -> bool:
    import torch.distributed as dist

    return isinstance(fault, dist.DistError) or "gloo" in str(fault) or "Connection closed" in str(fault)


@contextmanager
def dismissing() -> Iterator[None]:
    """In rank 0: let the processes that wait in `share` go when the body ends, unless they have failed with this one."""
    try:
        yield
    finally:
        if world().size > 1 and not _together:
            share(None)


_together = False
