"""Cross-layer equalisation: exact in fp32, only where it is valid, and of use where weights share one scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgetune.profile import Quantization
from edgetune.progress import Silent
from edgetune.quantize.calibrate import calibrate
from edgetune.quantize.equalise import equalisable_pairs, equalise
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.placement import to_qdq
from edgetune.quantize.prepare import prepare
from edgetune.quantize.weights import round_weights

PER_TENSOR = Quantization(per_channel=False)
CHANNELS = 8


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(["logits"], {"image": images})[0]
    return logits


def relu(net: Any, x: str) -> str:
    return net.add("Relu", x)


def clip(low: float | None, high: float | None) -> Callable[[Any, str], str]:
    def piece(net: Any, x: str) -> str:
        return net.add("Clip", x, *(net.const(bound) if bound is not None else "" for bound in (low, high)))

    return piece


def chain(net: Any, between: Callable[[Any, str], str] = relu) -> onnx.ModelProto:
    """Stem, expansion, depthwise and projection, as in an inverted residual, with `between` behind each but the last."""
    x = between(net, net.conv(net.stem(), CHANNELS, 12, size=1))
    x = between(net, net.conv(x, 12, 12, group=12))
    return net.head(net.conv(x, 12, CHANNELS, size=1))


def badly_scaled(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Multiply and divide the channels between convolutions by factors from 1/100 to 100: in fp32, the same network."""
    generator = np.random.default_rng(seed)
    graph = prepare(model, PER_TENSOR)
    changed = {name: graph.array(name).copy() for name in graph.constants}
    for pair in equalisable_pairs(graph):
        factors = 10.0 ** generator.uniform(-2, 2, len(changed[pair.first]))
        for name in (pair.first, pair.bias):
            if name:
                changed[name] *= factors.reshape(-1, *[1] * (changed[name].ndim - 1))
        # Depthwise: an input channel is an output channel.
        shape = (-1, 1, 1, 1) if pair.groups > 1 else (1, -1, 1, 1)
        changed[pair.second] /= factors.reshape(shape)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
    return copy


def nmse(graph: QuantGraph, images: np.ndarray) -> float:
    expected = run(graph.model, images)
    graph = calibrate(graph, lambda: iter([images]), method="pnorm", progress=Silent(), total=len(images))
    found = run(to_qdq(round_weights(graph)), images)
    return float(np.square(found - expected).sum() / np.square(expected - expected.mean(axis=0)).sum())


@pytest.mark.parametrize(
    ("between", "pairs"),
    [
        (relu, 3),
        (lambda net, x: x, 3),
        (clip(0.0, None), 3),
        (clip(0.0, float(np.finfo(np.float32).max)), 3),
        (clip(None, None), 3),
        (clip(0.0, 6.0), 1),
        (clip(-1.0, None), 1),
        (clip(None, 1.0), 1),
        (lambda net, x: net.add("HardSwish", x), 1),
        (lambda net, x: net.add("Mul", x, net.add("Sigmoid", x)), 1),
        (lambda net, x: net.add("Add", x, x), 1),
        (lambda net, x: net.add("Relu", net.add("Clip", x, "", net.const(0.5))), 1),
        (lambda net, x: net.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4), 1),
    ],
)
def test_only_what_is_homogeneous_lies_between(between: Callable[[Any, str], str], pairs: int, net: Any, dataset: Any) -> None:
    """The stem and the expansion, with a ReLU between, are a pair in all of them."""
    graph = prepare(badly_scaled(chain(net, between)), PER_TENSOR)
    images = np.array(dataset.images("test"))
    equal = equalise(graph)
    assert equal.steps[-1]["step"] == "cross-layer equalisation"
    assert equal.steps[-1]["pairs"] == pairs
    expected = run(graph.model, images)
    assert np.abs(run(equal.model, images) - expected).max() < 2e-5 * np.abs(expected).max()


def squeeze_excite(net: Any) -> onnx.ModelProto:
    x = net.add("Relu", net.conv(net.stem()))
    gate = net.conv(net.add("Relu", net.conv(net.add("GlobalAveragePool", x), size=1)), size=1)
    return net.head(net.conv(net.add("Mul", x, net.add("Sigmoid", gate))))


def residual(net: Any) -> onnx.ModelProto:
    x = net.stem()
    return net.head(net.conv(net.add("Relu", net.add("Add", x, net.conv(x)))))


def concatenation(net: Any) -> onnx.ModelProto:
    x = net.conv(net.add("MaxPool", net.stem(), kernel_shape=[3, 3]))
    return net.head(net.conv(net.add("Concat", net.add("Relu", x), net.conv(x), axis=1), 2 * CHANNELS))


def shared_weight(net: Any) -> onnx.ModelProto:
    weight = net.const(net.weight(CHANNELS, CHANNELS, 1, 1))
    first = net.add("Relu", net.add("Conv", net.add("MaxPool", net.stem(), kernel_shape=[1, 1]), weight))
    return net.head(net.add("Conv", first, weight))


def computed_weight(net: Any) -> onnx.ModelProto:
    x = net.add("MaxPool", net.stem(), kernel_shape=[1, 1])
    weight = net.add("Mul", net.const(net.weight(CHANNELS, CHANNELS, 1, 1)), net.add("ReduceMax", x, keepdims=0))
    return net.head(net.add("Conv", net.conv(x), weight))


def output_in_between(net: Any) -> onnx.ModelProto:
    model = net.head(net.conv(net.stem()))
    relu_output = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
    model.graph.output.append(onnx.helper.make_tensor_value_info(relu_output, onnx.TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize(
    ("build", "pairs"),
    # The excitation's own two convolutions are a pair; its gate and what it scales are none.
    [
        (squeeze_excite, 2),
        (residual, 0),
        (concatenation, 0),
        (shared_weight, 0),
        (computed_weight, 0),
        (output_in_between, 0),
    ],
)
def test_what_something_else_reads_is_left(build: Any, pairs: int, net: Any, dataset: Any) -> None:
    graph = prepare(build(net), PER_TENSOR)
    assert equalise(graph).steps[-1]["pairs"] == pairs
    images = np.array(dataset.images("test"))[:8]
    expected = run(graph.model, images)
    assert np.abs(run(equalise(graph).model, images) - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("group", [1, 2, 4, CHANNELS])
def test_groups_and_channel_multipliers(group: int, net: Any, dataset: Any) -> None:
    x = net.add("Relu", net.conv(net.add("MaxPool", net.stem(), kernel_shape=[1, 1]), bias=False))
    model = net.head(net.conv(x, CHANNELS, 2 * CHANNELS, group=group), 2 * CHANNELS)
    graph = prepare(model, PER_TENSOR)
    (pair,) = equalisable_pairs(graph)
    equal = equalise(graph)
    images = np.array(dataset.images("test"))[:8]
    expected = run(graph.model, images)
    assert np.abs(run(equal.model, images) - expected).max() < 2e-5 * np.abs(expected).max()
    out = np.abs(equal.array(pair.first)).max(axis=(1, 2, 3))
    second = np.abs(equal.array(pair.second))
    size = CHANNELS // group
    into = [second[i // size * 2 * size : (i // size + 1) * 2 * size, i % size].max() for i in range(CHANNELS)]
    np.testing.assert_allclose(out, into, rtol=1e-4)


def test_layers_left_in_float_take_no_part(net: Any) -> None:
    graph = prepare(chain(net), PER_TENSOR)
    depthwise = next(node.name for node in graph.layers() if len(graph.array(node.input[1])) == 12 and "group" in str(node))
    left = QuantGraph(model=graph.model, rules=graph.rules, left_float={depthwise: "it is faster"})
    assert len(equalisable_pairs(graph)) == 3
    assert len(equalisable_pairs(left)) == 1


def test_it_helps_where_channels_share_a_scale(net: Any, dataset: Any) -> None:
    images = np.array(dataset.images("train"))
    plain = prepare(chain(net), PER_TENSOR)
    spoilt = prepare(badly_scaled(plain.model), PER_TENSOR)
    mended = equalise(spoilt)
    assert mended.steps[-1]["largest_ratio"] > 30
    assert nmse(spoilt, images) > 0.1
    assert nmse(mended, images) < 2.0 * nmse(plain, images) < 0.01


def nearly_dead(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Take next to everything from a third of the channels between convolutions, but not their biases."""
    generator = np.random.default_rng(seed)
    graph = prepare(model, PER_TENSOR)
    first = {pair.first for pair in equalisable_pairs(graph)}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in first:
            weight = numpy_helper.to_array(tensor).copy()
            weight[::3] *= 10.0 ** generator.uniform(-6, -2)
            weight[1] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return copy


def test_nearly_dead_channels_are_not_enlarged_with_their_biases(net: Any, dataset: Any) -> None:
    """They are constants, and enlarged to the others' size they would widen the range of the activation."""
    images = np.array(dataset.images("train"))
    graphs = [prepare(nearly_dead(chain(type(net)(seed)), seed), PER_TENSOR) for seed in range(6)]
    # A net that hardly depends on its image any more has an error of any size: the median speaks for the others.
    assert np.median([nmse(equalise(graph), images) / nmse(graph, images) for graph in graphs]) < 1.2
    for graph in graphs:
        equal = equalise(graph)
        for pair in equalisable_pairs(graph):
            assert np.isfinite(equal.array(pair.first)).all()
            assert (np.abs(equal.array(pair.bias)).max() / np.median(np.abs(equal.array(pair.bias)))) < 50


def test_it_is_off_where_each_channel_has_its_scale_and_on_by_wish(net: Any) -> None:
    model = chain(net)
    for rules, wanted, pairs in (
        (Quantization(), "auto", 0),
        (Quantization(), True, 3),
        (PER_TENSOR, "auto", 3),
        (PER_TENSOR, False, 0),
    ):
        graph = prepare(model, rules)
        found = equalise(graph, wanted)  # type: ignore[arg-type]
        assert found.steps[-1]["pairs"] == pairs
        assert (found.model == graph.model) == (pairs == 0)
        assert bool(found.steps[-1].get("reason")) == (pairs == 0)


def test_the_same_model_gives_the_same_bytes_and_settles(net: Any) -> None:
    graph = prepare(badly_scaled(chain(net)), PER_TENSOR)
    once, again = equalise(graph), equalise(graph)
    assert once.model.SerializeToString(deterministic=True) == again.model.SerializeToString(deterministic=True)
    assert once.steps[-1]["passes"] < 50
    assert equalise(once).steps[-1]["largest_ratio"] < 1.02
