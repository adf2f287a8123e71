"""The network: a timm backbone with its ends as the recipe asks for, described by a value that builds it again."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from edgetune.errors import ArtefactError, Fault, WeightsError
from edgetune.train.activations import left_over, swap
from edgetune.train.ends import (
    enlarge,
    first_convs,
    forward_features,
    head_modules,
    head_name,
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

    from edgetune.recipe import ModelRecipe

__all__ = [
    "NetworkSpec",
    "Normalisation",
    "create_network",
    "forward_features",
    "head_modules",
    "head_of",
    "layer_groups",
    "network_spec",
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


def network_spec(model: ModelRecipe, *, image_size: int, channels: int, functions: str) -> NetworkSpec:
    """Return what builds the network that a recipe asks for; it has been built once, and has seen an image.

    Args:
        model: the backbone and its ends.
        image_size: height and width of the input, in pixels.
        channels: of the input.
        functions: `quantization.functions` of the profile, which decides what `activation = auto` means.

    Raises:
        WeightsError: the backbone cannot be what is asked for; all faults are listed.
    """
    import timm
    import torch

    # Neither the random weights of these throw-away networks nor the draws behind them may reach the run.
    with torch.random.fork_rng(devices=[]):
        plain = timm.create_model(model.backbone, num_classes=2)
        faults: list[Fault] = []
        options, size = _options(model, plain, model.enlarge_to or image_size, faults)
        size = size if model.enlarge_to is None else image_size
        channels = _channels(model.backbone, plain, channels, faults)
        has_head, stages = _has_head(plain, faults), _stages(model, plain, faults)
        spec = NetworkSpec(
            backbone=model.backbone,
            options=options,
            channels=channels,
            hidden=model.hidden if has_head else (),
            drop_rate=model.drop_rate if model.hidden else 0.0,
            stages=stages if has_head else None,
            enlarge_to=_enlarged(model, plain, image_size, faults),
            activation={"auto": "relu" if functions == "relu" else "keep"}.get(model.activation, model.activation),
        )
        spec = _tried(spec, size, faults)
    if faults:
        raise WeightsError("the backbone cannot be built as the recipe asks", faults=faults)
    return spec


def _options(model: ModelRecipe, plain: nn.Module, image_size: int, faults: list[Fault]) -> tuple[dict[str, Any], int]:
    """Return the keyword arguments of `timm.create_model`, and an image size that the network takes."""
    import timm

    accepted = inspect.signature(type(plain).__init__).parameters
    wanted = {"drop_rate": model.drop_rate, "drop_path_rate": model.drop_path_rate}
    options: dict[str, Any] = {name: rate for name, rate in wanted.items() if name in accepted}
    faults += [
        Fault(where=f"model.{name}", problem=f"{model.backbone} has no such option", got=str(rate), expected="0")
        for name, rate in wanted.items()
        if rate and name not in accepted
    ]
    config = timm.get_pretrained_cfg(model.backbone)
    if config is None or not config.fixed_input_size or config.input_size[-1] == image_size:
        return options, image_size
    if "img_size" in accepted:
        return options | {"img_size": image_size}, image_size
    own = int(config.input_size[-1])
    problem = f"{model.backbone} takes images of one size only"
    faults.append(Fault(where="data.image_size", problem=problem, got=str(image_size), expected=str(own)))
    return options, own


def _channels(backbone: str, plain: nn.Module, channels: int, faults: list[Fault]) -> int:
    """Return the number of channels, or 3 where the backbone takes no other."""
    if channels == RGB or ("in_chans" in inspect.signature(type(plain).__init__).parameters and first_convs(plain)):
        return channels
    problem = f"{backbone} has no first convolution that could be fitted to other channels than RGB"
    faults.append(Fault(where="data.channels", problem=problem, got=str(channels), expected=str(RGB)))
    return RGB


def _has_head(plain: nn.Module, faults: list[Fault]) -> bool:
    try:
        head_name(plain)
    except WeightsError as error:
        faults.append(Fault(where="model.backbone", problem=error.message, hint=error.remedy))
        return False
    return True


def _stages(model: ModelRecipe, plain: nn.Module, faults: list[Fault]) -> int | None:
    """Return the number of stages that are kept; `plain` is cut."""
    if model.stages == "all":
        return None
    try:
        truncate(plain, model.stages)
        pooled_width(plain, RGB)
    except WeightsError as error:
        faults.append(Fault(where="model.stages", problem=error.message, hint=error.remedy))
        return None
    return model.stages


def _enlarged(model: ModelRecipe, plain: nn.Module, image_size: int, faults: list[Fault]) -> int | None:
    """Return the size that images are enlarged to, if the backbone has a place for that."""
    size = model.enlarge_to
    if size is None or (first_convs(plain) and size >= image_size):
        return size
    problem = f"{model.backbone} has no first convolution to enlarge images before"
    if first_convs(plain):
        problem = f"images of {image_size} px are not enlarged by this"
    faults.append(Fault(where="model.enlarge_to", problem=problem, got=str(size), expected="leave it out"))
    return None


def _tried(spec: NetworkSpec, size: int, faults: list[Fault]) -> NetworkSpec:
    """Return the spec with the number of exchanged activations, after the network has seen one image."""
    import torch

    network = create_network(replace(spec, activation="keep"), 2).eval()
    swapped = swap(network, spec.activation)
    try:
        found = left_over(network, torch.zeros((1, spec.channels, size, size)))
    except (RuntimeError, AssertionError, ValueError) as fault:
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        problem = f"{spec.backbone} does not take such images ({reason[:200]})"
        faults.append(Fault(where="data.image_size", problem=problem, got=str(size)))
        return spec
    if spec.activation != "keep" and found:
        problem = f"{spec.backbone} computes {', '.join(found)} outside of its modules, where it cannot be exchanged"
        faults.append(Fault(where="model.activation", problem=problem, got=spec.activation, expected="keep"))
    return replace(spec, swapped=swapped)
