"""A network that only answers, made faster: batch norms folded into the convolutions before them.

In evaluation mode a batch norm is y = s (x - mean) + beta with the constant s = gamma / sqrt(variance + eps), so that a
convolution before it gives the same with the weights s w and the bias beta + s (b - mean). That saves a pass over each layer's
output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["folded"]

TOLERANCE = 1e-3
"""How far logits may be from the network's own, of the largest one: far above rounding, far below any other computation."""


def folded(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return a copy of a network that gives the same logits, up to rounding, in less time; it can no longer learn.

    A batch norm is folded where it takes the output of a plain convolution. Were something else to read that output, too, the
    logits would change; then the copy is the network as it was.

    Args:
        network: on the device of the images.
        images: a few, of the size that it will see: float32 `[n, K, H, W]`, normalised.
    """
    import copy

    import torch

    plain = copy.deepcopy(network).eval().requires_grad_(False)
    result = copy.deepcopy(plain)
    with torch.inference_mode():
        expected = plain(images)
    for convolution, norm in _pairs(result, images):
        _fold(result, convolution, norm)
    with torch.inference_mode():
        error = (result(images) - expected).abs().max()
    kept = result if error <= TOLERANCE * expected.abs().max() else plain
    return kept.to(memory_format=torch.channels_last)


def _pairs(network: nn.Module, images: torch.Tensor) -> list[tuple[str, str]]:
    """Return the names of convolutions, each with that of the batch norm which takes its output; each runs once."""
    import torch
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.norm_act import BatchNormAct2d
    from torch import nn

    calls: list[tuple[str, nn.Module, Any, Any]] = []
    # No other subclasses: one may do something with its weights first.
    watched = {nn.Conv2d, Conv2dSame, nn.BatchNorm2d, BatchNormAct2d}
    handles = [
        module.register_forward_hook(lambda module, taken, given, name=name: calls.append((name, module, taken[0], given)))
        for name, module in network.named_modules()
        if type(module) in watched
    ]
    try:
        with torch.inference_mode():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, *_ in calls]
    made = {id(given): name for name, module, _, given in calls if isinstance(module, nn.Conv2d)}
    norms = [(name, taken) for name, module, taken, _ in calls if getattr(module, "running_mean", None) is not None]
    pairs = [(made[id(taken)], name) for name, taken in norms if id(taken) in made]
    return [pair for pair in pairs if all(names.count(name) == 1 for name in pair)]


def _fold(network: nn.Module, convolution: str, norm: str) -> None:
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    conv: Any = network.get_submodule(convolution)
    bn: Any = network.get_submodule(norm)
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    conv.weight, conv.bias = (nn.Parameter(value.detach(), requires_grad=False) for value in (weight, bias))
    # timm's batch norms bring dropout and the activation function with them.
    network.set_submodule(norm, nn.Sequential(bn.drop, bn.act) if hasattr(bn, "act") else nn.Identity())
