"""The network: a timm backbone with a new head, and its layers in groups for layer-wise learning rates."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.recipe import ModelRecipe

__all__ = [
    "Normalisation",
    "create_network",
    "forward_features",
    "head_of",
    "layer_groups",
    "model_options",
    "normalisation",
    "require_known",
]


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
    return network.to(memory_format=torch.channels_last)


def model_options(backbone: str, model: ModelRecipe, image_size: int) -> dict[str, Any]:
    """Return the keyword arguments of `timm.create_model` that make a backbone what the recipe asks for.

    Args:
        backbone: timm's name.
        model: says the dropout.
        image_size: height and width of the input, in pixels.

    Raises:
        WeightsError: the architecture has no such option; all of them are listed.
    """
    import timm
    import torch

    # Neither the random weights of this throw-away network nor the draws behind them may reach the run.
    with torch.random.fork_rng(devices=[]):
        accepted = inspect.signature(type(timm.create_model(backbone, num_classes=2)).__init__).parameters
    wanted = {"drop_rate": model.drop_rate, "drop_path_rate": model.drop_path_rate}
    options: dict[str, Any] = {name: rate for name, rate in wanted.items() if name in accepted}
    faults = [
        Fault(where=f"model.{name}", problem=f"{backbone} has no such option", got=str(rate), expected="0")
        for name, rate in wanted.items()
        if rate and name not in accepted
    ]
    config = timm.get_pretrained_cfg(backbone)
    if config is not None and config.fixed_input_size and config.input_size[-1] != image_size:
        own = config.input_size[-1]
        if "img_size" in accepted:
            options["img_size"] = image_size
        else:
            problem = f"{backbone} takes images of one size only"
            faults.append(Fault(where="data.image_size", problem=problem, got=str(image_size), expected=str(own)))
    if faults:
        raise WeightsError("the backbone cannot be built as the recipe asks", faults=faults)
    return options


def normalisation(backbone: str) -> Normalisation:
    """Return the normalisation of a backbone's default pretrained weights."""
    import timm

    config = timm.get_pretrained_cfg(backbone)
    if config is None:
        return Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    mean, std = config.mean, config.std
    return Normalisation(mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


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
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise WeightsError(
            f"the head of this backbone is a {type(head).__name__}, not a linear layer with a bias",
            remedy="choose another backbone; see `edgetune backbones`",
        )
    return head


def layer_groups(network: nn.Module) -> list[list[tuple[str, nn.Parameter]]]:
    """Return the parameters in groups from the stem (first) to the head (last), by timm's own stages if it names any."""
    from timm.models import group_parameters

    if not hasattr(network, "group_matcher"):
        head = {id(parameter) for parameter in head_of(network).parameters()}
        parts = [(name, parameter) for name, parameter in network.named_parameters() if id(parameter) not in head]
        return [parts, [(name, parameter) for name, parameter in network.named_parameters() if id(parameter) in head]]
    matcher = network.group_matcher(coarse=True)  # type: ignore[operator]
    names: dict[Any, list[str]] = group_parameters(network, matcher, reverse=False)
    parameters = dict(network.named_parameters())
    return [[(name, parameters[name]) for name in names[key]] for key in sorted(names) if names[key]]
