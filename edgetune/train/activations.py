"""Activations in exchange: SiLU, hard-swish and their kin become ReLU or ReLU6, which integer kernels have for nothing.

Gates stay as they are: the sigmoid or hard-sigmoid of a squeeze-and-excitation multiplies, and a ReLU in its place would not
bound it. They work on one value per channel and image, so there is little to gain. The activation between the two layers of
such a block is exchanged like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["left_over", "swap"]

# Classes of torch and of timm, which has its own for old checkpoints, for little memory and for export.
SMOOTH = {
    *("SiLU", "Swish", "SwishMe", "Hardswish", "HardSwish", "HardSwishMe", "HardSwishJit"),
    *("GELU", "GELUTanh", "QuickGELU", "Mish", "MishMe", "HardMish", "HardMishMe"),
}
# What the same functions are called underneath, however they were called.
OPERATORS = ("silu", "hardswish", "gelu", "mish")


def swap(network: nn.Module, activation: str) -> int:
    """Exchange all smooth activations of a network in place; return how many.

    Args:
        network: any; modules inside norms with activation are found too.
        activation: `relu` or `relu6`; `keep` changes nothing.
    """
    from torch import nn

    if activation == "keep":
        return 0
    kind = {"relu": nn.ReLU, "relu6": nn.ReLU6}[activation]
    # One instance may serve several places: each of them is exchanged.
    found = [(name, module) for name, module in network.named_modules(remove_duplicate=False) if is_smooth(module)]
    for name, module in found:
        network.set_submodule(name, kind(inplace=bool(getattr(module, "inplace", False))))
    return len(found)


def is_smooth(module: nn.Module) -> bool:
    """Return whether a module is one of the activations that are exchanged."""
    return type(module).__name__ in SMOOTH


def left_over(network: nn.Module, images: torch.Tensor) -> list[str]:
    """Return the smooth activations that a network still computes, by the operators' names: those that are no modules.

    Args:
        network: in evaluation mode.
        images: normalised, float32 `[N, K, H, W]`.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: set[str] = set()

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.add(func.overloadpacket.__name__.rstrip("_"))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():  # type: ignore[no-untyped-call]
        network(images)
    return sorted(seen.intersection(OPERATORS))
