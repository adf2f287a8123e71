"""The linear probe: the backbone has run once over the images, and the head alone is fitted to what it saw."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.errors import Interrupted
from edgetune.train.augment import to_float
from edgetune.train.network import Normalisation, forward_features, head_modules

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from edgetune.artefacts import Images
    from edgetune.progress import Progress
    from edgetune.train.objective import Objective
    from edgetune.train.scores import Scores

    Targets = np.ndarray

__all__ = ["ProbeResult", "extract_features", "fit_probe"]

# Strengths of the L2 penalty on scaled features that are tried; the validation loss chooses. Few images with noisy values want
# more than the usual ones: as long as the strongest is the best, a stronger one is tried. What lies half way from the best to
# its neighbours is tried too: a whole step away from the best penalty costs up to a point of accuracy.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
STRONGER = (1.0, 1e1, 1e2, 1e3)
HALF_WAY = 10**0.5
SMALLEST_SCALE = 0.03
"""Of the mean spread of the features; what never fires has a spread of 0."""
BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What the head reached on the validation set, and under which penalty."""

    scores: Scores
    penalty: float


def extract_features(
    network: nn.Module,
    normalise: Normalisation,
    images: Images,
    *,
    device: torch.device,
    progress: Progress,
    label: str,
    stop: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """Return what the frozen backbone sees of each image: float32 `[N, F]`, on the CPU.

    Raises:
        Interrupted: `stop()` was true after a batch.
    """
    import numpy as np
    import torch

    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.from_numpy(np.array(images[start : start + BATCH_SIZE])).to(device)
            parts.append(forward_features(network, normalise(to_float(batch))).float().cpu())
            progress.advance(label, min(start + BATCH_SIZE, len(images)), len(images))
            if stop():
                raise Interrupted(f"interrupted at the {label}", remedy="run the same command again; they are computed anew")
    return torch.cat(parts)


def fit_probe(
    network: nn.Module,
    objective: Objective,
    train: tuple[torch.Tensor, torch.Tensor],
    val: tuple[torch.Tensor, Targets],
    *,
    iterations: int,
) -> ProbeResult:
    """Fit the network's head to features and write it into the network.

    L-BFGS on the objective, once per penalty; the validation loss chooses. The features are centred, and scaled all alike; at
    the penalties around the best one also each by the geometric mean of its own spread and the mean spread, where the penalty
    falls less on quiet features. A scale for each alone would blow up the weights of those that hardly ever fire. A linear head
    begins at zero, one with hidden layers at its random weights.

    Args:
        network: its head is overwritten.
        objective: the loss of all heads.
        train: features float32 `[N, F]` and targets `[N, T]`, in the units of the data; a row without any target has no effect.
        val: the same for the validation set.
        iterations: of L-BFGS, per penalty.
    """
    import torch

    features, targets = train
    mean, wanted = features.mean(dim=0), objective.standardised(targets)
    head = head_modules(network)
    start = copy.deepcopy(head).cpu().eval()
    tried: list[tuple[ProbeResult, nn.Module]] = []

    def attempt(scale: torch.Tensor, penalty: float) -> None:
        fitted = _fitted(start, objective, (features - mean) / scale, wanted, penalty, iterations)
        _fold(fitted, mean, scale)
        with torch.no_grad():
            scores = objective.scores(fitted(val[0]), val[1])
        tried.append((ProbeResult(scores=scores, penalty=penalty), fitted))

    alike, closer = _scales(features)
    for penalty in PENALTIES:
        attempt(alike, penalty)
    for penalty in STRONGER:
        if _best(tried)[0].penalty < tried[-1][0].penalty:
            break
        attempt(alike, penalty)
    middle, strongest = _best(tried)[0].penalty, tried[-1][0].penalty
    around = [penalty for penalty in (middle / HALF_WAY, middle * HALF_WAY) if PENALTIES[0] < penalty < strongest]
    for penalty in around:
        attempt(alike, penalty)
    for penalty in (middle, *around):
        attempt(closer, penalty)
    result, fitted = _best(tried)
    head.load_state_dict(fitted.state_dict())
    return result


def _best(tried: Sequence[tuple[ProbeResult, nn.Module]]) -> tuple[ProbeResult, nn.Module]:
    return min(tried, key=lambda each: each[0].scores.loss)


def _scales(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what features are divided by: the mean spread; its geometric mean with each feature's own; float32 `[F]`."""
    spread = features.std(dim=0, unbiased=False)
    typical = spread.mean().clamp_min(1e-6)
    return typical.expand_as(spread), (spread * typical).sqrt().maximum(SMALLEST_SCALE * typical)


def _fitted(
    start: nn.Module, objective: Objective, features: torch.Tensor, targets: torch.Tensor, penalty: float, iterations: int
) -> nn.Module:
    import torch
    from torch import nn

    head = copy.deepcopy(start).requires_grad_(True)
    parameters = list(head.parameters())
    if isinstance(head, nn.Linear):
        with torch.no_grad():
            for parameter in parameters:
                parameter.zero_()
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    optimizer = torch.optim.LBFGS(parameters, max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective.loss(head(features), targets)
        loss = loss + penalty * sum((weight.square().sum() for weight in weights), torch.zeros(())) / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return head.requires_grad_(False)


def _fold(head: nn.Module, mean: torch.Tensor, scale: torch.Tensor) -> None:
    """Fold the scaling of the features into the first layer: W(x - m)/s + b = (W/s)x + (b - (W/s)m)."""
    from torch import nn

    first = next(module for module in head.modules() if isinstance(module, nn.Linear))
    first.weight.div_(scale)
    first.bias.sub_(first.weight @ mean)
