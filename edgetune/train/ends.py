"""The ends of a network: the convolution that sees the image, the last stage that is kept, and the head behind it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from edgetune.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

__all__ = [
    "adapted",
    "enlarge",
    "first_convs",
    "forward_features",
    "head_modules",
    "head_name",
    "head_of",
    "pooled_width",
    "put_head",
    "truncate",
]

PROBE_SIZE = 64
# Where the families of timm keep their stages: one container of all, or one attribute for each.
CONTAINERS = ("blocks", "stages")
SINGLE = (("layer1", "layer2", "layer3", "layer4"), ("s1", "s2", "s3", "s4"))
# What lies between the last stage and the pooled features, fitted to the channels of the last stage.
TAILS = ("conv_head", "bn2", "norm_head", "act2", "final_conv")


def first_convs(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the convolutions that see the image; several where branches begin side by side.

    Empty where timm names none, or names a layer that is not a convolution.
    """
    from torch import nn

    named = (getattr(network, "pretrained_cfg", None) or {}).get("first_conv") or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    modules = dict(network.named_modules())
    return names if all(isinstance(modules.get(name), nn.Conv2d) for name in names) else ()


def enlarge(network: nn.Module, size: int) -> None:
    """Let a network resample its images to a larger height and width before its first convolutions, bilinearly."""
    modules = dict(network.named_modules())
    for name in first_convs(network):
        modules[name].register_forward_pre_hook(_resampling(size))


def _resampling(size: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], torch.Tensor]:
    """Return a hook; a function, not a method: copies of the network would take a method's object along."""

    def resample(_conv: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        import torch.nn.functional as F

        return F.interpolate(inputs[0], size=(size, size), mode="bilinear", align_corners=False)

    return resample


def adapted(found: dict[str, torch.Tensor], network: nn.Module, channels: int) -> dict[str, torch.Tensor]:
    """Return weights of an RGB network with their first convolutions fitted to so many channels.

    One channel: the kernels are summed over RGB, which on grey images is what the RGB network computes, if it normalises all
    colours alike. K channels: the kernels of R, G, B, R, … are repeated and scaled by 3 / K, so that the sum keeps its size.

    Args:
        found: by name; a first convolution that fits already is left alone.
        network: with the channels wanted.
        channels: K, of the network's input.
    """
    from timm.models import adapt_input_conv

    wanted = network.state_dict()
    result = dict(found)
    for name in (f"{conv}.weight" for conv in first_convs(network)):
        kernel = found.get(name)
        if kernel is None or kernel.ndim != 4 or kernel.shape[1] % 3 or kernel.shape == wanted[name].shape:
            continue
        try:
            result[name] = adapt_input_conv(channels, kernel)
        except NotImplementedError:  # More inputs than colours, and none of them grey: the shapes then say what is wrong.
            continue
    return result


def truncate(network: nn.Module, stages: int) -> None:
    """Cut all stages off a network but the first ones; what then reaches the classifier does not fit it any more.

    The stem is not counted. The stages are those that `layer_groups` tells apart: seven in most EfficientNets and MobileNets,
    four in ResNet and RegNet. What timm puts between the last stage and the classifier, such as `conv_head`, goes too.

    Raises:
        WeightsError: the network has fewer stages, or keeps them in a way that is not known here.
    """
    from torch import nn

    names = stage_names(network)
    if not names:
        kind = type(network).__name__
        raise WeightsError(f"the stages of a {kind} cannot be cut off", remedy="leave model.stages = all")
    if stages > len(names):
        remedy = f"give a number from 1 to {len(names)}, or all"
        raise WeightsError(f"the backbone has {len(names)} stages, not {stages}", remedy=remedy)
    if stages == len(names):
        return
    container, dot, _ = names[0].partition(".")
    if dot:
        setattr(network, container, nn.Sequential(*list(network.get_submodule(container).children())[:stages]))
    else:
        for name in names[stages:]:
            setattr(network, name, nn.Sequential())  # As timm does: the identity, and it can be iterated.
    for name in TAILS:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())


def stage_names(network: nn.Module) -> list[str]:
    """Return the names of the stages' modules from the first to the last; none if the layout is not known."""
    from torch import nn

    children = dict(network.named_children())
    for name in CONTAINERS:
        stages = children.get(name)
        # A transformer's blocks are no stages: each would be one module, not a row of them.
        if isinstance(stages, nn.Sequential) and all(isinstance(stage, nn.Sequential) for stage in stages):
            return [f"{name}.{number}" for number in range(len(stages))]
    return next((list(names) for names in SINGLE if all(name in children for name in names)), [])


def put_head(network: nn.Module, outputs: int, *, width: int, hidden: tuple[int, ...], drop_rate: float) -> None:
    """Replace a network's classifier by one with hidden layers, on whatever features reach it now.

    Below timm's own name of the classifier its tensors are `hidden1.weight`, `hidden2.weight`, …, `logits.weight`; without
    hidden layers they are `weight` and `bias` as ever.

    Args:
        network: its classifier is one linear layer.
        outputs: number of logits.
        width: the number of features that reach it.
        hidden: width of each hidden layer: linear, ReLU, dropout.
        drop_rate: of that dropout; the one before the first layer is timm's.

    Raises:
        WeightsError: the classifier is something else.
    """
    from torch import nn

    name = head_name(network)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    before = width
    for number, wide in enumerate(hidden, start=1):
        layers[f"hidden{number}"] = nn.Linear(before, wide)
        layers[f"act{number}"] = nn.ReLU()
        layers[f"drop{number}"] = nn.Dropout(drop_rate)
        before = wide
    layers["logits"] = nn.Linear(before, outputs)
    network.set_submodule(name, nn.Sequential(layers) if hidden else layers["logits"])
    network.num_features = network.head_hidden_size = width  # type: ignore[assignment]


def head_name(network: nn.Module) -> str:
    """Return the head's name, which is timm's for the classifier, such as `classifier`, `fc` or `head.fc`.

    Raises:
        WeightsError: the network's head does not end with one linear layer.
    """
    head_of(network)
    head = head_modules(network)
    return next(str(name) for name, module in network.named_modules() if module is head)


def pooled_width(network: nn.Module, channels: int) -> int:
    """Return the number of pooled features that reach the classifier, which a network that was cut does not know itself.

    Args:
        network: takes images of any size.
        channels: of its input.

    Raises:
        WeightsError: it cannot do without the stages that were cut off.
    """
    import torch

    training = network.training
    sample = torch.zeros((1, channels, PROBE_SIZE, PROBE_SIZE), device=next(network.parameters()).device)
    try:
        with torch.no_grad():
            return int(forward_features(network.eval(), sample).shape[1])
    except (RuntimeError, AssertionError) as fault:
        problem = f"a {type(network).__name__} cannot do without the stages that were cut off"
        raise WeightsError(problem, remedy="leave model.stages = all") from fault
    finally:
        network.train(training)


def forward_features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return what the head sees, hidden layers and all: float32 `[N, F]` for normalised images `[N, K, H, W]`."""
    features = network.forward_head(network.forward_features(images), pre_logits=True)  # type: ignore[operator]
    return features.flatten(1)  # type: ignore[no-any-return]


def head_modules(network: nn.Module) -> nn.Module:
    """Return the whole head, from the pooled features to the logits: hidden layers, if any, and the last linear layer."""
    return network.get_classifier()  # type: ignore[operator, no-any-return]


def head_of(network: nn.Module) -> nn.Linear:
    """Return the last linear layer.

    Raises:
        WeightsError: the network's head does not end with one linear layer.
    """
    from torch import nn

    head = head_modules(network)
    last = getattr(head, "logits", None) if isinstance(head, nn.Sequential) else head
    if not isinstance(last, nn.Linear) or last.bias is None:
        raise WeightsError(
            f"the head of this backbone is a {type(head).__name__}, not a linear layer with a bias",
            remedy="choose another backbone; see `edgetune backbones`",
        )
    return last
