"""Every operator is quantized, or stays in float and is named: never a crash, never a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Piece = Callable[[Any, str], str]


def silu(net: Any, x: str) -> str:
    x = net.conv(x)
    return net.add("Mul", x, net.add("Sigmoid", x))


def gelu(net: Any, x: str) -> str:
    x = net.conv(x)
    erf = net.add("Erf", net.add("Div", x, net.const(np.sqrt(2.0))))
    return net.add("Mul", net.add("Mul", x, net.add("Add", erf, net.const(1.0))), net.const(0.5))


def two_consumers(net: Any, x: str) -> str:
    x = net.conv(x)
    clamped = net.add("Relu", x)
    return net.add("Add", net.conv(clamped), net.conv(x))


def squeeze_excite(net: Any, x: str) -> str:
    gate = net.add("Relu", net.conv(net.add("GlobalAveragePool", x), size=1))
    return net.add("Mul", x, net.add("Sigmoid", net.conv(gate, size=1)))


def hard_squeeze_excite(net: Any, x: str) -> str:
    gate = net.conv(net.add("GlobalAveragePool", x), size=1)
    return net.add("Mul", x, net.add("HardSigmoid", gate, alpha=1 / 6, beta=0.5))


def shared_weight(net: Any, x: str) -> str:
    weight = net.const(net.weight(8, 8, 1, 1))
    first = net.add("Relu", net.add("Conv", x, weight, net.const(np.zeros(8))))
    return net.add("Conv", first, weight, net.const(np.full(8, 0.3)))


def constant_arithmetic(net: Any, x: str) -> str:
    weight = net.add("Mul", net.const(net.weight(8, 8, 1, 1)), net.const(2.0))
    return net.conv(net.add("Conv", x, weight))


def computed_weight(net: Any, x: str) -> str:
    weight = net.add("Mul", net.const(net.weight(8, 8, 1, 1)), net.add("ReduceMax", x, keepdims=0))
    return net.conv(net.add("Conv", x, weight))


def tokens(net: Any, x: str) -> str:
    """Attention as a vision transformer has it, on 3-D activations."""
    x = net.add("Transpose", net.add("Reshape", x, net.const([-1, 8, 256], "int64")), perm=[0, 2, 1])
    query, key, value = (net.add("MatMul", x, net.const(net.weight(8, 8))) for _ in range(3))
    scores = net.add("Softmax", net.add("MatMul", query, net.add("Transpose", key, perm=[0, 2, 1])), axis=-1)
    x = net.add("Add", x, net.add("MatMul", net.add("MatMul", scores, value), net.const(net.weight(8, 8))))
    normal = net.add("LayerNormalization", x, net.const(np.ones(8)), net.const(np.zeros(8)), axis=-1)
    x = net.add("Transpose", net.add("Add", normal, net.const(np.arange(8) / 8)), perm=[0, 2, 1])
    return net.add("Reshape", x, net.const([-1, 8, 16, 16], "int64"))


def dynamic_shape(net: Any, x: str) -> str:
    batch, channels = (net.add("Gather", net.add("Shape", x), net.const([axis], "int64"), axis=0) for axis in (0, 1))
    shape = net.add("Concat", batch, channels, net.add("Add", channels, channels), net.const([16], "int64"), axis=0)
    shape = net.add("Concat", shape, net.add("Slice", shape, net.const([0], "int64"), net.const([0], "int64")), axis=0)
    flat = net.add("Relu", net.conv(net.add("Reshape", x, net.const([-1, 4, 32, 16], "int64")), 4, 4))
    return net.conv(net.add("Reshape", flat, shape))


def windows(net: Any, x: str) -> str:
    """The batch axis grows: four windows of each image."""
    x = net.add("Reshape", net.conv(x), net.const([-1, 8, 8, 16], "int64"))
    return net.add("Reshape", net.add("Relu", net.conv(x)), net.const([-1, 8, 16, 16], "int64"))


def computed_clip(net: Any, x: str) -> str:
    high = net.add("ReduceMax", net.conv(x), keepdims=0)
    return net.add("Clip", net.conv(x), "", high)


def dead(net: Any, x: str) -> str:
    """A Relu that never lets anything through, and a bias that is large beside nothing."""
    weight, bias = net.const(net.weight(8, 8, 1, 1)), net.const(np.full(8, -50.0))
    nothing = net.add("Relu", net.add("Conv", x, weight, bias))
    return net.add("Add", x, net.add("Conv", nothing, net.const(net.weight(8, 8, 1, 1)), net.const(np.linspace(-1, 1, 8))))


def tiny(net: Any, x: str) -> str:
    """Activations so small that a bias in units of their scale would overflow 32 bits."""
    little = net.add("Conv", x, net.const(1e-10 * net.weight(8, 8, 1, 1)))
    return net.add("Add", x, net.conv(little, size=1))


def upscaled(net: Any, x: str) -> str:
    weight = net.const(net.generator.normal(0.0, 0.3, (8, 8, 2, 2)))
    return net.conv(net.add("ConvTranspose", x, weight, strides=[2, 2]), strides=[2, 2])


def layer_scale(net: Any, x: str) -> str:
    scaled = net.add("Mul", net.conv(x), net.const(np.linspace(0.1, 1.0, 8).reshape(8, 1, 1)))
    return net.add("Add", net.add("Add", x, scaled), net.const(0.1))


def batch_norm(net: Any, x: str) -> str:
    constants = [net.const(np.linspace(low, 1.5, 8)) for low in (0.5, -1.0, -0.5, 0.5)]
    return net.conv(net.add("BatchNormalization", net.conv(x), *constants))


def clip(low: float | None, high: float | None) -> Piece:
    def piece(net: Any, x: str) -> str:
        bounds = [net.const(bound) if bound is not None else "" for bound in (low, high)]
        return net.add("Clip", net.conv(x), *bounds)

    return piece


def after_conv(operator: str, **attributes: Any) -> Piece:
    return lambda net, x: net.conv(net.add(operator, net.conv(x), **attributes))


# Per piece, how many layers ONNX Runtime computes in float; all others have to be integer.
PIECES: dict[str, tuple[Piece, int]] = {
    "conv": (lambda net, x: net.conv(x), 0),
    "conv without bias": (lambda net, x: net.conv(x, bias=False), 0),
    "depthwise": (lambda net, x: net.add("Relu", net.conv(x, group=8)), 0),
    "grouped": (lambda net, x: net.conv(x, group=2), 0),
    "dilated": (lambda net, x: net.conv(x, dilations=[2, 2]), 0),
    "residual": (lambda net, x: net.add("Relu", net.add("Add", x, net.conv(x))), 0),
    "twice the same": (lambda net, x: net.conv(net.add("Add", x, x)), 0),
    "two consumers": (two_consumers, 0),
    "relu6": (clip(0.0, 6.0), 0),
    "tight clip": (clip(0.0, 0.7), 0),
    "clip from below": (clip(-0.3, None), 0),
    "clip from above": (clip(None, 0.4), 0),
    "hard tanh": (clip(-0.37, 0.61), 0),
    "clip without zero": (clip(0.25, 6.0), 0),
    "computed clip": (computed_clip, 0),
    "leaky relu": (after_conv("LeakyRelu", alpha=0.1), 0),
    "silu": (silu, 0),
    "gelu": (gelu, 0),
    "hard swish": (after_conv("HardSwish"), 0),
    "hard sigmoid": (after_conv("HardSigmoid"), 0),
    "elu": (after_conv("Elu"), 0),
    "max pool": (lambda net, x: net.conv(net.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])), 0),
    "max pool of conv": (after_conv("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), 0),
    "relu behind max pool": (lambda net, x: net.add("Relu", after_conv("MaxPool", kernel_shape=[2, 2])(net, x)), 0),
    "average pool": (after_conv("AveragePool", kernel_shape=[3, 3], pads=[1] * 4), 0),
    "average pool with pads": (after_conv("AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), 0),
    "average pool, rounded up": (after_conv("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), 0),
    "squeeze and excite": (squeeze_excite, 0),
    "hard squeeze and excite": (hard_squeeze_excite, 0),
    "concat": (lambda net, x: net.conv(net.add("Concat", x, net.conv(x), axis=1), 16, 8), 0),
    "layer scale": (layer_scale, 0),
    "shared weight": (shared_weight, 0),
    "weight from constants": (constant_arithmetic, 0),
    "computed weight": (computed_weight, 1),
    "batch norm": (batch_norm, 0),
    "transposed convolution": (upscaled, 0),
    "attention": (tokens, 2),
    "shape at run time": (dynamic_shape, 0),
    "windows": (windows, 0),
    "dead": (dead, 0),
    "tiny": (tiny, 0),
}


@pytest.mark.parametrize("name", PIECES)
def test_operator(name: str, net: Any, quantized: Any, logits: Any, tmp_path: Any) -> None:
    piece, float_layers = PIECES[name]
    model = quantized(net.head(piece(net, net.stem())))
    fp32, int8, plain = (
        logits(tmp_path / "fp32" / "model.onnx"),
        logits(model.path),
        logits(model.path, optimised=False),
    )
    spread = np.square(fp32 - fp32.mean(axis=0)).sum()
    assert np.square(int8 - fp32).sum() < 0.02 * spread
    assert np.square(int8 - plain).sum() < 0.004 * spread
    assert len(model.float_nodes) == float_layers, model.float_nodes
    assert not model.warnings
    assert model.operators.get("Conv", 0) + model.operators.get("FusedConv", 0) <= float_layers
