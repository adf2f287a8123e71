"""From a recipe to the value that describes a network: what the backbone can be, tried once before anything is trained."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgetune.errors import Fault, WeightsError
from edgetune.train.activations import left_over, swap
from edgetune.train.ends import first_convs, head_name, pooled_width, truncate
from edgetune.train.network import RGB, NetworkSpec, create_network

if TYPE_CHECKING:
    from torch import nn

    from edgetune.recipe import ModelRecipe

__all__ = ["network_spec"]


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
