"""Shape arithmetic goes, whatever the batch; what cannot be said beforehand stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgetune.rewrites.simplify import simplify

from .writer import compute, names_of

BATCHES = [("N", 8, 6, 6), (2, 8, 6, 6), (None, 8, 6, 6)]


def side(net: Any, x: str, axis: int) -> str:
    """`x.size(axis)` as torch's older exporter writes it, in one dimension."""
    one = net.add("Gather", net.add("Shape", x), net.const(axis, "int64"), axis=0)
    return net.add("Unsqueeze", one, net.const([0], "int64"))


def view(net: Any, x: str) -> str:
    """`x.view(x.size(0), -1)`."""
    return net.add("Reshape", x, net.add("Concat", side(net, x, 0), net.const([-1], "int64"), axis=0))


def dynamo(net: Any, x: str) -> str:
    """As torch's newer exporter writes it: a slice of the shape, and every side."""
    first = net.add("Shape", x, start=0, end=1)
    return net.add("Reshape", x, net.add("Concat", first, net.const([288], "int64"), axis=0))


def sliced(net: Any, x: str) -> str:
    whole = net.add("Shape", x)
    first = net.add("Slice", whole, net.const([0], "int64"), net.const([1], "int64"), net.const([0], "int64"))
    rest = net.add("ReduceProd", net.add("Slice", whole, net.const([1], "int64"), net.const([4], "int64")), keepdims=1)
    return net.add("Reshape", x, net.add("Concat", first, rest, axis=0))


def product(net: Any, x: str) -> str:
    """`x.view(-1, c * h * w)`."""
    sides = [side(net, x, axis) for axis in (1, 2, 3)]
    last = net.add("Mul", net.add("Mul", sides[0], sides[1]), sides[2])
    return net.add("Reshape", x, net.add("Concat", net.const([-1], "int64"), last, axis=0))


FLATTENS: dict[str, Callable[[Any, str], str]] = {
    "view": view,
    "dynamo": dynamo,
    "sliced": sliced,
    "product": product,
    "constant": lambda net, x: net.add("Reshape", x, net.const([-1, 288], "int64")),
    "copied": lambda net, x: net.add("Reshape", x, net.const([0, -1], "int64")),
    "twice": lambda net, x: view(net, view(net, x)),
    "in steps": lambda net, x: net.add("Flatten", net.add("Reshape", x, net.const([0, 8, 36], "int64"))),
}


@pytest.mark.parametrize("shape", BATCHES, ids=str)
@pytest.mark.parametrize("name", FLATTENS)
def test_what_flattens_is_flatten(name: str, shape: tuple[Any, ...], net: Any, simplified: Any) -> None:
    model = net.model(FLATTENS[name](net, net.add("Relu", "x")), shape=shape)
    assert [name for name in simplified(model) if name != "Reshape"] == ["Relu", "Flatten"]
    assert (names_of(simplify(model)[0]).count("Reshape") == 1) == (name == "in steps")


@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_channel_shuffle(shape: tuple[Any, ...], net: Any, simplified: Any) -> None:
    x = net.add("Relu", "x")
    groups = net.add("Div", side(net, x, 1), net.const([2], "int64"))
    parts = [side(net, x, 0), net.const([2], "int64"), groups, side(net, x, 2), side(net, x, 3)]
    turned = net.add("Transpose", net.add("Reshape", x, net.add("Concat", *parts, axis=0)), perm=[0, 2, 1, 3, 4])
    back = [side(net, x, 0), net.const([-1], "int64"), side(net, x, 2), side(net, x, 3)]
    last = net.add("Reshape", turned, net.add("Concat", *back, axis=0))
    assert simplified(net.model(last, shape=shape)) == ["Relu", "Reshape", "Transpose", "Reshape"]


def test_a_fixed_batch_is_not_written_into_targets(net: Any, simplified: Any) -> None:
    """The graph then takes any batch, once its input says so."""
    model = net.model(net.add("Reshape", "x", net.const([1, 4, 72], "int64")), shape=(1, 8, 6, 6))
    assert simplified(model) == ["Reshape"]
    after = simplify(model)[0]
    after.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert compute(after, 3)[0].shape == (3, 4, 72)


def test_a_gate_need_not_be_expanded(net: Any, simplified: Any) -> None:
    """`x * gate.expand_as(x)`."""
    gate = net.add("Sigmoid", net.add("GlobalAveragePool", "x"))
    last = net.add("Mul", "x", net.add("Expand", gate, net.add("Shape", "x")))
    assert simplified(net.model(last)) == ["GlobalAveragePool", "Sigmoid", "Mul"]


def test_same_padding_computed_from_the_shape_ends_in_the_convolution(net: Any, simplified: Any) -> None:
    """Pads = max((ceil(h / 2) - 1) * 2 + 3 - h, 0), in float, as torch traces it."""
    height = net.add("Cast", side(net, "x", 2), to=1)
    out = net.add("Ceil", net.add("Div", height, net.const([2.0])))
    covered = net.add("Add", net.add("Mul", net.add("Sub", out, net.const([1.0])), net.const([2.0])), net.const([3.0]))
    missing = net.add("Cast", net.add("Clip", net.add("Sub", covered, height), net.const(0.0)), to=7)
    none = net.const([0], "int64")
    pads = net.add("Concat", none, none, none, none, none, none, missing, missing, axis=0)
    last = net.conv(net.add("Pad", "x", pads), strides=[2, 2], pads=[0] * 4)
    assert simplified(net.model(last)) == ["Conv"]


def windows(net: Any) -> str:
    """The batch takes part in the arithmetic."""
    grown = net.add("Mul", side(net, "x", 0), net.const([4], "int64"))
    return net.add("Reshape", "x", net.add("Concat", grown, net.const([8, 9], "int64"), axis=0))


def test_arithmetic_with_the_batch_is_what_is_left(net: Any, simplified: Any) -> None:
    assert simplified(net.model(windows(net))) == ["Reshape"]


def test_two_sides_that_are_not_known_keep_the_chain(net: Any, simplified: Any) -> None:
    target = net.add("Concat", side(net, "x", 3), side(net, "x", 2), net.const([8], "int64"), side(net, "x", 0), axis=0)
    model = net.model(net.add("Reshape", "x", target), shape=("N", 8, "H", 6))
    assert "Shape" in simplified(model)


def test_a_target_with_literal_zeros_is_left(net: Any) -> None:
    model = net.model(net.add("Reshape", "x", net.const([0, -1], "int64"), allowzero=1))
    assert simplify(model)[1] == ()
