"""A network that edgetune trained as a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgetune.device.heads import Head
from edgetune.files import digest_of, sha256_file
from edgetune.train.distill.folding import folded
from edgetune.train.distill.teacher import (
    Teacher,
    TeacherSource,
    column_order,
    require_channels,
    resized,
    shows_no_features,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.artefacts import Checkpoint

__all__ = ["NetworkTeacher", "checkpoint_teacher"]


def checkpoint_teacher(
    checkpoint: Checkpoint,
    heads: Sequence[Head],
    load_network: Callable[[Checkpoint], nn.Module],
    forward_features: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    *,
    device: torch.device,
) -> TeacherSource:
    """Return a trained network as a teacher.

    Args:
        checkpoint: the network, and what its weights want to see.
        heads: the student's.
        load_network: from the checkpoint to the network.
        forward_features: from a network and normalised images `[n, K, H, W]` to pooled features `[n, G]`.
        device: where to compute.

    Raises:
        DataError: its columns are not the student's.
    """
    order = column_order(checkpoint.heads, heads, f"the teacher {checkpoint.backbone}")
    shape = checkpoint.preprocessing

    def create() -> Teacher:
        return NetworkTeacher(
            load_network(checkpoint),
            mean=checkpoint.mean,
            std=checkpoint.std,
            size=(shape.height, shape.width),
            order=order,
            forward_features=forward_features,
            device=device,
        )

    depends = {
        "backbone": checkpoint.backbone,
        "network": checkpoint.network,
        "weights": sha256_file(checkpoint.weights_path),
        "classes": list(checkpoint.classes),
        "normalisation": [list(checkpoint.mean), list(checkpoint.std)],
        "size": [shape.height, shape.width],
    }
    description = f"{checkpoint.backbone} at {shape.height} x {shape.width} px"
    return TeacherSource(identity=digest_of(depends), description=description, create=create)


class NetworkTeacher:
    """A torch network.

    Args:
        network: from normalised images float32 `[n, K, H, W]` to logits `[n, C]`, in its own order.
        mean: per channel, of views in [0, 1]; subtracted first.
        std: per channel; divided by.
        size: height and width of what it looks at; other views are resampled to it.
        order: which of its columns stands for each of the student's.
        device: where to compute.
        forward_features: from the network and normalised images to pooled features `[n, G]`, if it can show them.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int],
        order: Sequence[int],
        device: torch.device,
        forward_features: Callable[[nn.Module, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        import torch

        # Drawn on its own: whether a teacher had to be loaded must not move the run's random numbers, a GPU's neither.
        noise = torch.randn((1, len(mean), *size), generator=torch.Generator().manual_seed(0))
        self._network = folded(network.to(device), noise.to(device))
        self._mean = torch.tensor(tuple(mean), device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(tuple(std), device=device).view(1, -1, 1, 1)
        self._size, self._device = size, device
        self._order = torch.tensor(list(order), device=device)
        self._forward_features = forward_features

    @property
    def width(self) -> int:
        """Of its logits."""
        return len(self._order)

    @property
    def feature_width(self) -> int | None:
        """Of its pooled features; None if it does not show them."""
        import torch

        if self._forward_features is None:
            return None
        blank = torch.zeros((1, self._mean.shape[1], *self._size), device=self._device)
        return self.features(blank).shape[1]

    def logits(self, views: torch.Tensor) -> torch.Tensor:
        """Return logits float32 `[n, C]`, in the student's order, of views float32 `[n, K, H, W]` in [0, 1]."""
        import torch

        with torch.inference_mode():
            logits: torch.Tensor = self._network(self._prepared(views))
            return logits.float()[:, self._order]

    def features(self, views: torch.Tensor) -> torch.Tensor:
        """Return pooled features float32 `[n, G]` of views float32 `[n, K, H, W]` in [0, 1]."""
        import torch

        if self._forward_features is None:
            raise shows_no_features("as it was built")
        with torch.inference_mode():
            return self._forward_features(self._network, self._prepared(views)).float()

    def _prepared(self, views: torch.Tensor) -> torch.Tensor:
        require_channels(views, self._mean.shape[1])
        return (resized(views.to(self._device), self._size) - self._mean) / self._std
