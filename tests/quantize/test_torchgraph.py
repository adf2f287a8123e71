"""The simulation in torch against ONNX Runtime: the same integers, and what learning changes arrives in the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgetune.profile import Profile, Quantization
from edgetune.progress import Silent
from edgetune.quantize.bias import with_own_biases
from edgetune.quantize.calibrate import calibrate
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.fakequant import ActivationGrid
from edgetune.quantize.graph import Grid, QuantGraph, Unsupported
from edgetune.quantize.placement import to_qdq
from edgetune.quantize.prepare import prepare
from edgetune.quantize.segments import segments
from edgetune.quantize.torchgraph import TorchGraph, trained
from edgetune.quantize.weights import round_weights


def residual(net: Any) -> onnx.ModelProto:
    x = net.stem()
    inner = net.add("Clip", net.conv(x, group=8), net.const(0.0), net.const(6.0))
    return net.head(net.add("Relu", net.add("Add", x, net.conv(inner, size=1))))


def excited(net: Any) -> onnx.ModelProto:
    x = net.stem()
    gate = net.add("Sigmoid", net.conv(net.add("Relu", net.conv(net.add("GlobalAveragePool", x), size=1)), size=1))
    return net.head(net.conv(net.add("Mul", x, gate), size=1))


def pooled(net: Any) -> onnx.ModelProto:
    x = net.add("MaxPool", net.stem(), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    both = net.add("Concat", net.conv(x), net.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4), axis=1)
    return net.head(net.conv(net.add("HardSwish", net.conv(both, 16, 8)), bias=False))


NETS = (residual, excited, pooled)


@pytest.fixture
def integers(dataset: Any, profile: Profile) -> Callable[..., QuantGraph]:
    """Give a model its grids."""
    images = np.array(dataset.images("train"))

    def run(model: onnx.ModelProto, rules: Quantization | None = None) -> QuantGraph:
        graph = integer_entry(prepare(model, rules or profile.quantization))
        return with_own_biases(
            round_weights(calibrate(graph, lambda: iter([images]), method="pnorm", progress=Silent(), total=len(images)))
        )

    return run


def simulated(graph: QuantGraph, images: np.ndarray) -> np.ndarray:
    source, target = graph.model.graph.input[0].name, graph.model.graph.output[0].name
    module = TorchGraph(graph, list(graph.model.graph.node), source, target, output_step=0.01)
    with torch.no_grad():
        result: np.ndarray = module(torch.from_numpy(images)).numpy()
    return result


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"image": images})[0]
    return result


RULES = ({}, {"per_channel": False}, {"activation_type": "int8", "symmetric_activations": True}, {"weight_type": "uint8"})


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_torch_computes_what_the_integers_do(
    make: Any, rules: dict[str, Any], net: Any, integers: Any, dataset: Any, profile: Profile
) -> None:
    graph = integers(make(net), profile.quantization.model_copy(update=rules))
    images = np.array(dataset.images("test"))
    got, expected, exact = simulated(graph, images), run(to_qdq(graph), images), run(graph.model, images)
    # A sum in another order may round to the neighbouring integer; quantization itself is much farther away.
    assert np.abs(got - expected).max() < 0.2 * np.abs(expected - exact).max()
    assert np.median(np.abs(got - expected)) < 0.02 * np.median(np.abs(expected - exact))


def test_what_is_learnt_arrives_in_the_file(net: Any, integers: Any, dataset: Any) -> None:
    graph = integers(residual(net))
    images = np.array(dataset.images("train"))
    wanted = torch.from_numpy(run(graph.model, images))
    module = TorchGraph(graph, list(graph.model.graph.node), "image", "logits", output_step=0.01)
    before = np.square(simulated(graph, images) - wanted.numpy()).mean()
    batch = (torch.from_numpy(images), wanted)
    loss = torch.nn.functional.mse_loss
    trained(module, lambda: batch, loss, steps=40, lr=0.02, scale_lr=1e-3)
    learnt = module.result()
    after = np.square(run(to_qdq(learnt), images) - wanted.numpy()).mean()
    assert after < 0.5 * before
    changed = [name for name in graph.weights if (graph.weights[name].values != learnt.weights[name].values).any()]
    assert changed
    assert any(graph.activations[name].scale != grid.scale for name, grid in learnt.activations.items())
    # Nothing but what was learnt: the weights in float stay as they were, for whoever rounds them again.
    assert all((graph.array(node.input[1]) == learnt.array(node.input[1])).all() for node in graph.layers())


def test_a_learnt_scale_keeps_its_grid_inside_the_clamp() -> None:
    start = Grid(scale=float(np.float32(6 / 255)), zero_point=0)
    grid = ActivationGrid(start, "uint8", (0.0, 6.0))
    with torch.no_grad():
        grid.log_ratio.fill_(0.3)
    assert np.float32(grid.grid().scale) * np.float32(255) <= 6.0
    free = ActivationGrid(start, "uint8", None)
    with torch.no_grad():
        free.log_ratio.fill_(0.3)
    assert free.grid().scale == pytest.approx(start.scale * np.exp(0.3), rel=1e-6)


def test_the_gradient_of_a_scale_is_that_of_the_rounding_error() -> None:
    grid = ActivationGrid(Grid(scale=0.5, zero_point=0), "uint8", None)
    values = torch.tensor([0.6, 0.8, 500.0, -3.0], requires_grad=True)
    grid(values).sum().backward()
    # round(x / s) - x / s inside, the last integer outside; the scale is s exp(r), so the gradient of r is s times that.
    expected = 0.5 * ((1 - 1.2) + (2 - 1.6) + 255 + 0)
    assert grid.log_ratio.grad.item() == pytest.approx(expected, rel=1e-5)
    assert values.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_segments_hold_every_node_and_meet_in_one_tensor(net: Any, integers: Any) -> None:
    graph = integers(residual(net))
    parts = segments(graph, least_layers=1)
    assert [node.name for part in parts for node in part.nodes] == [node.name for node in graph.model.graph.node]
    assert parts[0].source == "image"
    assert parts[-1].target == "logits"
    assert [part.target for part in parts[:-1]] == [part.source for part in parts[1:]]
    assert sum(part.layers for part in parts) == len(graph.weights) == 4
    # The block with the shortcut cannot be cut inside.
    assert [part.layers for part in parts] == [1, 2, 1]
    assert [part.layers for part in segments(graph, least_layers=3)] == [4]


def test_an_operator_without_a_twin_in_torch_is_named(net: Any, integers: Any) -> None:
    x = net.add("Elu", net.conv(net.stem()))
    graph = integers(net.head(x))
    with pytest.raises(Unsupported, match=r"elu_.*: Elu"):
        simulated(graph, np.zeros((1, 32, 32, 3), np.uint8))
