"""What a network says of images as the device will see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.train.augment import to_float
from edgetune.train.distributed import World, gather, world

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.artefacts import Images
    from edgetune.train.network import Normalisation

__all__ = ["predict"]

BATCH_SIZE = 64


def predict(
    network: nn.Module, normalise: Normalisation, images: Images, device: torch.device, *, shared: bool = False
) -> torch.Tensor:
    """Return a network's logits: float32 `[N, C]`, on the CPU.

    Args:
        network: gives logits; it is left in evaluation mode.
        normalise: applied to images in [0, 1].
        images: uint8 `[N, H, W, K]`.
        device: where to compute.
        shared: whether all processes are here: they share the images, and all get all logits.
    """
    import numpy as np
    import torch

    network.eval()
    here = world() if shared else World()
    begin, end = (len(images) * rank // here.size for rank in (here.rank, here.rank + 1))
    parts = []
    with torch.inference_mode():
        for start in range(begin, end, BATCH_SIZE):
            batch = torch.from_numpy(np.array(images[start : min(end, start + BATCH_SIZE)])).to(device)
            parts.append(network(normalise(to_float(batch))).float().cpu())
    logits = torch.cat(parts) if parts else torch.zeros(0)
    return gather(logits) if shared else logits
