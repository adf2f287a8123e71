"""Quantization-aware training: the whole graph, in simulated integers, learns to answer as fp32 does. No labels are needed.

It starts from the best graph so far, so that learning is only the last touch: roundings, biases and scales of all layers at
once, for the logits, where reconstruction looks at one segment at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from edgetune.device.heads import REGRESSION, SINGLE_LABEL, Head, columns_of
from edgetune.numeric import on_one_scale
from edgetune.quantize.bias import with_own_biases
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.torchgraph import TorchGraph, trained

if TYPE_CHECKING:
    from edgetune.progress import Progress

__all__ = ["Training", "train_quantized"]

Images = Callable[[Sequence[int]], npt.NDArray[np.uint8]]
"""From rows to their images, uint8 `[n, H, W, K]`."""
REPORTS = 50


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the graph learns.

    Attributes:
        steps: of the optimizer.
        batch_size: images per step.
        lr: of weights and biases, in steps of their grids.
        scale_lr: of the scales of activations, relative.
        logit_weight: of the squared error of the logits, beside the divergence.
    """

    steps: int = 600
    batch_size: int = 64
    lr: float = 3e-3
    scale_lr: float = 3e-4
    logit_weight: float = 1.0


def train_quantized(
    graph: QuantGraph,
    images: Images,
    logits: npt.NDArray[np.float32],
    heads: Sequence[Head],
    *,
    training: Training,
    seed: int,
    progress: Progress,
) -> QuantGraph:
    """Learn the roundings, biases and scales of the whole graph.

    Args:
        graph: with grids for all activations and weights.
        images: gives the images of rows.
        logits: of fp32, for each row: float32 `[N, C]`.
        heads: what the logits mean.
        training: how.
        seed: draws the batches.
        progress: told of the steps.

    Raises:
        Unsupported: the graph has an operator that torch is not asked to compute.
    """
    graph = with_own_biases(graph)
    source, target = graph.model.graph.input[0].name, graph.model.graph.output[0].name
    module = TorchGraph(graph, list(graph.model.graph.node), source, target, output_step=float(logits.std()) / 64)
    size = min(training.batch_size, len(logits))
    generator = torch.Generator().manual_seed(seed)
    loss = _Loss(logits, heads, training.logit_weight)

    def batch() -> tuple[torch.Tensor, Any]:
        rows = torch.randint(len(logits), (size,), generator=generator).numpy()
        return torch.from_numpy(images(rows.tolist())), torch.from_numpy(logits[rows])

    def told(step: int) -> None:
        if step % REPORTS == 0 or step == training.steps:
            progress.advance("quantization-aware training", step, training.steps)

    trained(module, batch, loss, steps=training.steps, lr=training.lr, scale_lr=training.scale_lr, told=told)
    note = {"step": "quantization-aware training", "images": len(logits), "steps": training.steps}
    return module.result().updated(note)


class _Loss:
    """How far answers are from fp32's: the divergence of what they decide, and the squared error of the logits."""

    def __init__(self, logits: npt.NDArray[np.float32], heads: Sequence[Head], logit_weight: float) -> None:
        centre, scale = on_one_scale(logits, heads)
        self.heads, self.logit_weight = heads, logit_weight
        self.scale = torch.from_numpy(scale.astype(np.float32))
        spread = ((logits - centre) / scale).std()
        self.spread = float(spread) if spread > 0 else 1.0

    def __call__(self, answers: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        error = ((answers - wanted) / self.scale / self.spread).square().mean() * self.logit_weight
        for head, columns in zip(self.heads, columns_of(self.heads), strict=True):
            ours, theirs = answers[:, columns], wanted[:, columns]
            if head.kind == SINGLE_LABEL:
                error = error + F.kl_div(ours.log_softmax(1), theirs.log_softmax(1), reduction="batchmean", log_target=True)
            elif head.kind != REGRESSION:
                entropy = F.binary_cross_entropy_with_logits(theirs, theirs.sigmoid(), reduction="sum")
                cross = F.binary_cross_entropy_with_logits(ours, theirs.sigmoid(), reduction="sum")
                error = error + (cross - entropy) / len(ours)
        return error
