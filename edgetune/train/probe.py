"""The linear probe: the backbone runs once over the images, and the head alone is fitted to what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.errors import Interrupted
from edgetune.train.augment import to_float
from edgetune.train.network import Normalisation, forward_features, head_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

    from edgetune.progress import Progress

__all__ = ["ProbeResult", "extract_features", "fit_probe"]

# Strengths of the L2 penalty on scaled features that are tried; the validation loss chooses.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What the linear probe reached on the validation set."""

    val_top1_percent: float
    val_loss: float
    penalty: float


def extract_features(
    network: nn.Module,
    normalise: Normalisation,
    images: npt.NDArray[np.uint8],
    *,
    device: torch.device,
    progress: Progress,
    label: str,
    stop: Callable[[], bool] = lambda: False,
    batch_size: int = 64,
) -> torch.Tensor:
    """Return what the frozen network's last layer sees of each image: float32 `[N, F]`, on the CPU.

    Raises:
        Interrupted: `stop()` was true after a batch.
    """
    import numpy as np
    import torch

    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
            parts.append(forward_features(network, normalise(to_float(batch))).float().cpu())
            progress.advance(label, min(start + batch_size, len(images)), len(images))
            if stop():
                raise Interrupted(f"interrupted at the {label}", remedy="run the same command again; the probe starts over")
    return torch.cat(parts)


def fit_probe(
    network: nn.Module,
    train: tuple[torch.Tensor, torch.Tensor],
    val: tuple[torch.Tensor, torch.Tensor],
    *,
    iterations: int,
    label_smoothing: float,
) -> ProbeResult:
    """Fit the network's head to features and write it into the network.

    Multinomial logistic regression by L-BFGS, once per penalty; the validation loss chooses. The features are centred, and
    scaled all alike: a scale for each would blow up the weights of features that hardly ever fire.

    Args:
        network: its last linear layer is overwritten.
        train: features float32 `[N, F]` and labels int64 `[N]`.
        val: the same for the validation set.
        iterations: of L-BFGS, per penalty.
        label_smoothing: of the train loss.
    """
    import torch
    import torch.nn.functional as F

    features, labels = train
    mean, std = features.mean(dim=0), features.std(dim=0, unbiased=False).mean().clamp_min(1e-6)
    head = head_of(network)
    best: tuple[ProbeResult, torch.Tensor, torch.Tensor] | None = None
    for penalty in PENALTIES:
        weight, bias = _fit((features - mean) / std, labels, head.out_features, penalty, iterations, label_smoothing)
        # The scaling is folded into the layer: W(x - m)/s + b = (W/s)x + (b - (W/s)m).
        weight = weight / std
        bias = bias - weight @ mean
        logits = val[0] @ weight.T + bias
        loss = F.cross_entropy(logits, val[1]).item()
        top1 = 100.0 * (logits.argmax(dim=1) == val[1]).double().mean().item()
        if best is None or loss < best[0].val_loss:
            best = ProbeResult(val_top1_percent=top1, val_loss=loss, penalty=penalty), weight, bias
    if best is None:
        raise AssertionError("there is at least one penalty")
    with torch.no_grad():
        head.weight.copy_(best[1])
        head.bias.copy_(best[2])
    return best[0]


def _fit(
    features: torch.Tensor, labels: torch.Tensor, classes: int, penalty: float, iterations: int, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch
    import torch.nn.functional as F

    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, labels, label_smoothing=smoothing)
        loss = loss + penalty * weight.square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
