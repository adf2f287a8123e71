"""How well a network does on images as the device will see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.train.augment import to_float

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.artefacts import Images, Labels
    from edgetune.train.network import Normalisation

__all__ = ["evaluate"]


def evaluate(
    network: nn.Module, normalise: Normalisation, images: Images, labels: Labels, device: torch.device
) -> tuple[float, float]:
    """Return the cross-entropy (nats) and the top-1 (percent) of a network on images as the device will see them.

    Args:
        network: gives logits `[N, C]`.
        normalise: applied to images in [0, 1].
        images: uint8 `[N, H, W, 3]`.
        labels: int64 `[N]`.
        device: where to compute.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    network.eval()
    loss = hits = 0.0
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            batch = torch.from_numpy(np.array(images[start : start + 64])).to(device)
            wanted = torch.from_numpy(np.array(labels[start : start + 64])).to(device)
            logits = network(normalise(to_float(batch))).float()
            loss += F.cross_entropy(logits, wanted, reduction="sum").item()
            hits += (logits.argmax(dim=1) == wanted).sum().item()
    return loss / len(images), 100.0 * hits / len(images)
