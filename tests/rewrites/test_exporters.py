"""What torch's exporters write of real networks, batch norms and shape chains included."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from edgetune.export.trace import deployable, trace
from edgetune.profile import Quantization
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.prepare import prepare

from .writer import assert_same, names_of

FLOAT_ONLY = {
    "BatchNormalization",
    "Cast",
    "Constant",
    "Expand",
    "Gather",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "Pad",
    "ReduceMean",
    "Reshape",
    "Shape",
    "Slice",
}


def network(name: str) -> nn.Module:
    """Return a network with random weights whose batch norms have seen something."""
    import timm

    torch.manual_seed(0)
    module: nn.Module = timm.create_model(name, pretrained=False, num_classes=5)
    with torch.no_grad():
        module.train()(torch.randn(4, 3, 64, 64))
    return module.eval()


def write(module: nn.Module, path: Path, *, opset: int, dynamo: bool, fixed: bool) -> onnx.ModelProto:
    """Export with nothing folded."""
    old = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    axes = None if fixed else {"x": {0: "N"}, "y": {0: "N"}}
    keys: dict[str, Any] = {"optimize": False} if dynamo else {**old, "dynamic_axes": axes}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, 64, 64),),
            path,
            opset_version=opset,
            dynamo=dynamo,
            external_data=False,
            input_names=["x"],
            output_names=["y"],
            verbose=False,
            **keys,
        )
    return onnx.load(path)


@pytest.mark.parametrize(
    ("name", "opset", "dynamo", "fixed"),
    [
        # Hard swishes and squeeze-excite; opset 11 has no HardSwish.
        ("mobilenetv3_small_050", 11, False, False),
        ("mobilenetv3_small_050", 17, False, True),
        # Its pads are computed from the shape of what they pad.
        ("tf_mobilenetv3_small_minimal_100", 13, False, False),
        ("resnet10t", 18, True, True),
    ],
)
def test_all_is_in_integer_form(name: str, opset: int, dynamo: bool, fixed: bool, tmp_path: Path) -> None:
    model = write(network(name), tmp_path / "model.onnx", opset=opset, dynamo=dynamo, fixed=fixed)
    assert "BatchNormalization" in names_of(model)
    graph = prepare(model, Quantization())
    assert not FLOAT_ONLY & set(names_of(graph.model))
    assert not graph.left_float
    assert not [step for step in graph.steps if step["step"] == "operators without an integer kernel"]
    assert_same(model, graph.model)


@pytest.mark.parametrize("bias", [False, True])
def test_biases_of_zero_leave_the_entry_in_integers(bias: bool) -> None:
    """The exporter merges equal constants and drops biases that are zero: a network that was never trained has such."""
    first, second = (nn.Sequential(nn.Conv2d(n, 8, 3, bias=bias), nn.BatchNorm2d(8), nn.ReLU()) for n in (3, 8))
    module = nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    for name, value in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(value)
    model = trace(deployable(module, (0.5,) * 3, (0.5,) * 3), 16, 16)
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len({tuple(node.input[2:]) for node in convs}) == 1
    graph = integer_entry(prepare(model, Quantization()))
    assert graph.steps[-1] == {"step": "integer entry", "nodes": 3}
    biases = [name for node in graph.model.graph.node if node.op_type == "Conv" for name in node.input[2:]]
    assert len(set(biases)) == len(biases)
    assert_same(model, prepare(model, Quantization()).model)
