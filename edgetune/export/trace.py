"""torch → ONNX: the network with its preprocessing, traced once, with a dynamic batch."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import TYPE_CHECKING

from edgetune.errors import Fault, GraphError

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

__all__ = ["OPSET", "deployable", "trace"]

# The exporter's own operator set: older ones would need a conversion that fails on common operators, newer ones are not yet
# in the fusions of every runtime that the profiles allow. IR 8 is what belongs to it.
OPSET = 18
IR_VERSION = 8


def deployable(network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """Return a module from `image` uint8 `[N, H, W, K]` to `logits` float32 `[N, C]`.

    Args:
        network: from normalised images float32 `[N, K, H, W]` to logits; it is copied, not changed.
        mean: per channel, of inputs in [0, 1]; K of them.
        std: per channel.
    """
    import torch
    from torch import nn

    class SpatialMean(nn.Module):
        """What `AdaptiveAvgPool2d(1)` computes; that itself is traced as a chain of shape arithmetic."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3), keepdim=True)

    class Deployable(nn.Module):
        """(k / 255 - mean) / std as one multiplication and one subtraction, then the network."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.network = inner
            deviation = torch.tensor(std, dtype=torch.float64)
            self.scale = nn.Buffer((1.0 / (255.0 * deviation)).float().view(1, -1, 1, 1))
            self.shift = nn.Buffer((torch.tensor(mean, dtype=torch.float64) / deviation).float().view(1, -1, 1, 1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x: torch.Tensor = self.network(image.permute(0, 3, 1, 2).float() * self.scale - self.shift)
            return x

    inner = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in list(inner.modules()):
        if getattr(module, "fused_attn", False):
            # Fused attention is traced with its keys' shape computed at run time; written out, it is three operators.
            module.fused_attn = False
        for name, child in list(module.named_children()):
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, SpatialMean())
    return Deployable(inner).eval()


def trace(module: nn.Module, height: int, width: int, channels: int = 3) -> onnx.ModelProto:
    """Return the graph of a deployable module for images `[N, height, width, channels]`.

    Batch norms are folded, weights inside, and the batch is dynamic.

    Raises:
        GraphError: an operator of the network has no ONNX counterpart, or the network does not take a batch of any size.
    """
    import torch

    sample = torch.zeros((2, height, width, channels), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (sample,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes={"image": {0: torch.export.Dim("N")}},
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, torch.onnx.OnnxExporterError) as failure:
        cause = failure.__cause__ or failure
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise GraphError(
            f"the network cannot be exported at opset {OPSET}",
            faults=[Fault(where=type(cause).__name__, problem=reason[:300])],
            remedy="choose another backbone; see `edgetune backbones`",
        ) from failure
    if program is None:
        raise GraphError("torch's exporter returned nothing", remedy="install another torch")
    model = program.model_proto
    _require_any_batch(model)
    if model.ByteSize() >= 2**31:
        raise GraphError(
            f"the model has {model.ByteSize()} bytes; one ONNX file holds at most 2 GiB", remedy="choose a smaller backbone"
        )
    return model


def _require_any_batch(model: onnx.ModelProto) -> None:
    """Raise if the network decided something by the number of images: torch then exports it for the sample's number alone."""
    for value in [*model.graph.input, *model.graph.output]:
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.dim_param:
            raise GraphError(
                f"the network cannot be exported at opset {OPSET} for a batch of any size",
                faults=[Fault(where=value.name, problem="fixed batch", got=str(batch.dim_value), expected="any")],
                remedy="choose another backbone; see `edgetune backbones`",
            )
