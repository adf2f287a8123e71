"""Which backbones there are: a choice of small ones, or all that timm knows by a pattern."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.errors import UsageError
from edgetune.train.weights import describe

__all__ = ["SMALL", "Backbone", "catalogue"]

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
    """Return the small backbones, or all that match a pattern.

    Raises:
        UsageError: nothing matches.
    """
    import timm

    names = [name for name in SMALL if timm.is_model(name)] if pattern is None else timm.list_models(pattern)
    if not names:
        raise UsageError(f"no backbone matches {pattern!r}", remedy="try a pattern with stars, such as 'mobilenet*'")
    return [_row(name, count=len(names) <= COUNTED_AT_MOST) for name in names]


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
