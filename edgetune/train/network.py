"""The network: a timm backbone with a new head, and its layers in groups for layer-wise learning rates."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Normalisation", "create_network", "forward_features", "layer_groups", "normalisation", "require_known"]


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What a backbone's pretrained weights expect: inputs in [0, 1], minus `mean`, over `std`, per channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return normalised images: float32 `[N, 3, H, W]` in [0, 1] → the same shape."""
        import torch

        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images - mean) / std


def require_known(backbone: str) -> None:
    """Raise unless timm knows a backbone by this name.

    Raises:
        WeightsError: with the nearest names.
    """
    import timm

    if timm.is_model(backbone.split(".")[0]):
        return
    near = difflib.get_close_matches(backbone, timm.list_models(), n=3)
    fault = Fault(
        where="model.backbone",
        problem="timm has no model of this name",
        got=repr(backbone),
        hint=f"did you mean {' or '.join(repr(name) for name in near)}?" if near else "",
    )
    raise WeightsError("the backbone is not known", faults=[fault], remedy="see `edgetune backbones`")


def create_network(backbone: str, classes: int, options: dict[str, Any]) -> nn.Module:
    """Return the network with random weights.

    Args:
        backbone: timm's name.
        classes: the number of outputs.
        options: keyword arguments for `timm.create_model`, such as `drop_rate`.
    """
    import timm
    import torch

    network: nn.Module = timm.create_model(backbone, pretrained=False, num_classes=classes, **options)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def normalisation(backbone: str) -> Normalisation:
    """Return the normalisation of a backbone's default pretrained weights."""
    import timm

    config = timm.get_pretrained_cfg(backbone)
    if config is None:
        return Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return Normalisation(mean=tuple(config.mean), std=tuple(config.std))


def forward_features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return what the last layer sees: float32 `[N, F]` for normalised images `[N, 3, H, W]`."""
    features = network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[operator]
    return features.flatten(1)  # type: ignore[no-any-return]


def head_of(network: nn.Module) -> nn.Linear:
    """Return the last linear layer.

    Raises:
        WeightsError: the network's head is not one linear layer.
    """
    from torch import nn

    head = network.get_classifier()  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        raise WeightsError(
            f"the head of this backbone is a {type(head).__name__}, not a linear layer",
            remedy="choose another backbone; see `edgetune backbones`",
        )
    return head


def layer_groups(network: nn.Module) -> list[list[tuple[str, nn.Parameter]]]:
    """Return the parameters in groups from the stem (first) to the head (last), by timm's own stages."""
    from timm.models import group_parameters

    matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
    names: dict[Any, list[str]] = group_parameters(network, matcher, reverse=False)
    parameters = dict(network.named_parameters())
    return [[(name, parameters[name]) for name in names[key]] for key in sorted(names) if names[key]]
