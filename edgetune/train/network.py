"""The network: a timm backbone with its ends as the recipe asks for, described by a value that builds it again."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from edgetune.errors import ArtefactError, Fault, WeightsError
from edgetune.train.activations import swap
from edgetune.train.ends import (
    enlarge,
    forward_features,
    head_modules,
    head_of,
    pooled_width,
    put_head,
    truncate,
)
from edgetune.train.groups import layer_groups, third_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn


__all__ = [
    "RGB",
    "NetworkSpec",
    "Normalisation",
    "create_network",
    "forward_features",
    "head_modules",
    "head_of",
    "layer_groups",
    "normalisation",
    "require_known",
    "third_groups",
]

RGB = 3
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Everything that builds an architecture again beside the number of its logits.

    Attributes:
        backbone: timm's name.
        options: keyword arguments of `timm.create_model`, such as `drop_rate`.
        channels: of the input.
        hidden: widths of the head's hidden layers.
        drop_rate: of the dropout behind each hidden layer; the dropout before the head is one of the options.
        stages: how many of the backbone's stages are kept; None: all.
        enlarge_to: height and width that the network resamples its images to; None: it takes them as they are.
        activation: what SiLU and its kin were exchanged for: keep, relu or relu6.
        swapped: how many activations that concerned.
    """

    backbone: str
    options: dict[str, Any] = field(default_factory=dict)
    channels: int = RGB
    hidden: tuple[int, ...] = ()
    drop_rate: float = 0.0
    stages: int | None = None
    enlarge_to: int | None = None
    activation: str = "keep"
    swapped: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self) | {"hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> NetworkSpec:
        """Return what `to_json` wrote.

        Raises:
            ArtefactError: fields are missing or not known.
        """
        # Networks of before this could be had were not enlarged.
        content = {"enlarge_to": None, **content}
        names = {one.name for one in fields(cls)}
        if names != set(content):
            raise ArtefactError(
                "a network is described in another way than this version of edgetune does",
                faults=[Fault(where=name, problem="is missing") for name in sorted(names - set(content))]
                + [Fault(where=name, problem="is not known") for name in sorted(set(content) - names)],
                remedy="train it again, or use the version of edgetune that trained it",
            )
        return cls(**{**content, "hidden": tuple(content["hidden"])})

    def in_words(self) -> str:
        """Return what is unlike the plain backbone, for a line of the log; empty if nothing is."""
        parts = [f"{self.channels} input channel{'s' * (self.channels > 1)}"] if self.channels != RGB else []
        parts += [f"images enlarged to {self.enlarge_to} px"] if self.enlarge_to else []
        parts += [f"{self.stages} stage{'s' * (self.stages > 1)}"] if self.stages else []
        parts += [f"hidden layers of {', '.join(map(str, self.hidden))}"] if self.hidden else []
        parts += [f"{self.swapped} activations exchanged for {self.activation}"] if self.activation != "keep" else []
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What a backbone's pretrained weights expect: inputs in [0, 1], minus `mean`, over `std`, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return normalised images: float32 `[N, K, H, W]` in [0, 1] → the same shape."""
        import torch

        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images - mean) / std


def normalisation(spec: NetworkSpec) -> Normalisation:
    """Return the normalisation that a backbone's default pretrained weights expect, for each input channel.

    One channel gets the mean over RGB; of K channels each gets that of the colour whose kernel it gets: R, G, B, R, …
    """
    import timm

    config = timm.get_pretrained_cfg(spec.backbone)
    mean, std = (config.mean, config.std) if config is not None else IMAGENET
    if spec.channels == 1:
        return Normalisation(mean=(sum(mean) / RGB,), std=(sum(std) / RGB,))
    colours = [number % RGB for number in range(spec.channels)]
    return Normalisation(mean=tuple(mean[colour] for colour in colours), std=tuple(std[colour] for colour in colours))


def require_known(backbone: str) -> None:
    """Raise unless timm knows a backbone by this name.

    Raises:
        WeightsError: with the nearest names.
    """
    import timm

    name, _, tag = backbone.partition(".")
    if timm.is_model(name):
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
        if tag and tag not in tags:
            fault = Fault(where="model.backbone", problem=f"timm has no weights of {name} under this tag", got=repr(tag))
            raise WeightsError("the backbone is not known", faults=[fault], remedy=f"known tags: {', '.join(tags) or 'none'}")
        return
    near = difflib.get_close_matches(backbone, timm.list_models(), n=3)
    fault = Fault(
        where="model.backbone",
        problem="timm has no model of this name",
        got=repr(backbone),
        hint=f"did you mean {' or '.join(repr(name) for name in near)}?" if near else "",
    )
    raise WeightsError("the backbone is not known", faults=[fault], remedy="see `edgetune backbones`")


def create_network(spec: NetworkSpec, outputs: int) -> nn.Module:
    """Return the network with random weights, channels last.

    Args:
        spec: what to build.
        outputs: the number of logits.

    Raises:
        WeightsError: the backbone has not what the spec changes; `network_spec` says so before.
    """
    import timm
    import torch

    options = spec.options if spec.channels == RGB else {**spec.options, "in_chans": spec.channels}
    network: nn.Module = timm.create_model(spec.backbone, pretrained=False, num_classes=outputs, **options)
    if spec.stages or spec.hidden:
        width = head_of(network).in_features
        if spec.stages:
            truncate(network, spec.stages)
            width = pooled_width(network, spec.channels)
        put_head(network, outputs, width=width, hidden=spec.hidden, drop_rate=spec.drop_rate)
    if spec.enlarge_to:
        enlarge(network, spec.enlarge_to)
    swap(network, spec.activation)
    return network.to(memory_format=torch.channels_last)
