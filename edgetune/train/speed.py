"""How a device computes the fastest: memory layout, precision, compilation.

On a CPU nothing is measured: what the weather of a measurement decides would decide the bits of the weights, too, and the same
recipe has to give the same bytes there. On a GPU each combination runs for a few steps, and what is chosen is written down.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.progress import Progress
    from edgetune.recipe import TrainRecipe
    from edgetune.train.distributed import World

__all__ = ["Speed", "choose_speed"]

Layout = Literal["channels-last", "contiguous"]
Dtype = Literal["float32", "bfloat16", "float16"]
WARMUP, TIMED = 3, 5
# Compiling takes a minute or two: shorter runs cannot win that back.
WORTH_COMPILING_S = 600.0


@dataclass(frozen=True)
class Speed:
    """How the steps are computed.

    Attributes:
        layout: of images and weights in memory.
        dtype: of the forward pass; other than float32 by autocast.
        compiled: whether torch.compile is used.
        measured_ms: per combination that was tried, the median time of a step in milliseconds.
    """

    layout: Layout = "channels-last"
    dtype: Dtype = "float32"
    compiled: bool = False
    measured_ms: dict[str, float] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context that a forward pass runs in."""
        import torch

        dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.dtype]
        return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

    def arranged(self, images: torch.Tensor) -> torch.Tensor:
        """Return images in the memory layout."""
        import torch

        contiguous = self.layout == "contiguous"
        return images.contiguous(memory_format=torch.contiguous_format if contiguous else torch.channels_last)

    def arrange(self, network: nn.Module) -> nn.Module:
        """Put a network's weights into the memory layout; return it."""
        import torch

        contiguous = self.layout == "contiguous"
        layout = torch.contiguous_format if contiguous else torch.channels_last
        return network.to(memory_format=layout)

    def prepare(self, network: nn.Module, world: World) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return what computes a network's logits in training, with gradients shared by all processes."""
        import torch

        wrapped: Any = network
        if world.size > 1:
            from torch.nn.parallel import DistributedDataParallel

            on_gpu = next(network.parameters()).device.type == "cuda"
            # Rank 0's buffers are sent to the others before a step, which have the same already: see `mean_statistics`.
            wrapped = DistributedDataParallel(network, device_ids=[world.local_rank] if on_gpu else None)
        return torch.compile(wrapped) if self.compiled else wrapped


def choose_speed(
    recipe: TrainRecipe,
    device: torch.device,
    step: Callable[[nn.Module, Speed], None],
    network: nn.Module,
    *,
    steps: int,
    progress: Progress,
) -> Speed:
    """Return how to compute, as the recipe says, or where it says auto as it is best on this device.

    Args:
        recipe: amp, layout, compile.
        device: a CPU is not measured.
        step: computes one training step of a network in some way and returns once it is done.
        network: a copy of it is used for measuring.
        steps: of the whole run, by which compilation has to pay.
        progress: told what was chosen and by which times.
    """
    layouts: Sequence[Layout] = ("channels-last", "contiguous") if recipe.layout == "auto" else (recipe.layout,)
    dtypes: Sequence[Dtype] = ("bfloat16", "float16", "float32") if recipe.amp == "auto" else (recipe.amp,)
    compiled = recipe.compile == "yes"
    if device.type == "cpu":
        dtype: Dtype = "float32" if recipe.amp == "auto" else recipe.amp
        return Speed(layout=layouts[0], dtype=dtype, compiled=compiled)
    candidates = [Speed(layout=layout, dtype=dtype, compiled=compiled) for layout in layouts for dtype in dtypes]
    times = {candidate: measure(candidate, step, network) for candidate in candidates} if len(candidates) > 1 else {}
    best = min(times, key=lambda one: times[one], default=candidates[0])
    if recipe.compile == "auto" and times and times[best] * steps / 1e3 > WORTH_COMPILING_S:
        faster = Speed(layout=best.layout, dtype=best.dtype, compiled=True)
        times[faster] = measure(faster, step, network)
        best = min(best, faster, key=lambda one: times[one])
    chosen = Speed(
        layout=best.layout, dtype=best.dtype, compiled=best.compiled, measured_ms={named(o): t for o, t in times.items()}
    )
    if times:
        said = ", ".join(f"{name} {ms:.1f} ms" for name, ms in chosen.measured_ms.items())
        progress.line(f"a step takes {said}: {named(chosen)} is used")
    return chosen


def named(speed: Speed) -> str:
    """Return a combination in words."""
    return f"{speed.layout} {speed.dtype}{' compiled' if speed.compiled else ''}"


def measure(candidate: Speed, step: Callable[[nn.Module, Speed], None], network: nn.Module) -> float:
    """Return the median time of a step in milliseconds, on a copy of the network."""
    trial = candidate.arrange(copy.deepcopy(network))
    times = []
    for number in range(WARMUP + TIMED):
        began = time.perf_counter()
        step(trial, candidate)
        if number >= WARMUP:
            times.append(1e3 * (time.perf_counter() - began))
    return sorted(times)[len(times) // 2]
