"""Clamps and gates in every spelling, folded where they can be, and in integer form for quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgetune.rewrites.simplify import integer_gates, simplify

from .writer import assert_same, names_of


def clip(net: Any, x: str, low: float | None = 0.0, high: float | None = 6.0) -> str:
    return net.add("Clip", x, *(net.const(bound) if bound is not None else "" for bound in (low, high)))


def relu6(net: Any, x: str) -> str:
    """relu6(x + 3)."""
    return clip(net, net.add("Add", x, net.const(3.0)))


SIGMOIDS: dict[str, Callable[[Any, str], str]] = {
    "operator": lambda net, x: net.add("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    "operator with defaults": lambda net, x: net.add("HardSigmoid", x),
    "divided": lambda net, x: net.add("Div", relu6(net, x), net.const(6.0)),
    "multiplied": lambda net, x: net.add("Mul", net.const(1 / 6), relu6(net, x)),
    "keras": lambda net, x: clip(net, net.add("Add", net.add("Mul", x, net.const(0.2)), net.const(0.5)), 0.0, 1.0),
    "tensorflow": lambda net, x: net.add(
        "Mul", net.add("Min", net.add("Relu", net.add("Add", x, net.const(3.0))), net.const(6.0)), net.const([1 / 6])
    ),
    "falling": lambda net, x: clip(net, net.add("Add", net.add("Div", x, net.const(-3.0)), net.const(0.5)), 0.0, 1.0),
}
SWISHES: dict[str, Callable[[Any, str], str]] = {
    "operator": lambda net, x: net.add("HardSwish", x),
    "gate divided": lambda net, x: net.add("Mul", x, net.add("Div", relu6(net, x), net.const(6.0))),
    "product divided": lambda net, x: net.add("Div", net.add("Mul", x, relu6(net, x)), net.const(6.0)),
    "product multiplied": lambda net, x: net.add("Mul", net.add("Mul", relu6(net, x), x), net.const(1 / 6)),
    "of a hard sigmoid": lambda net, x: net.add("Mul", x, net.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "with extremes": lambda net, x: net.add(
        "Mul",
        x,
        net.add(
            "Div",
            net.add("Min", net.const(6.0), net.add("Max", net.add("Add", x, net.const(3.0)), net.const(0.0))),
            net.const(6.0),
        ),
    ),
}


@pytest.mark.parametrize("name", SIGMOIDS)
def test_a_hard_sigmoid_folds_into_its_layer(name: str, net: Any, simplified: Any) -> None:
    pooled = net.conv(net.add("GlobalAveragePool", "x"))
    last = net.add("Mul", "x", SIGMOIDS[name](net, pooled))
    assert simplified(net.model(last)) == ["GlobalAveragePool", "Conv", "Clip", "Mul"]


def test_a_hard_sigmoid_folds_into_a_gemm(net: Any, simplified: Any) -> None:
    flat = net.add("Flatten", net.add("GlobalAveragePool", "x"))
    assert simplified(net.model(SIGMOIDS["divided"](net, net.linear(flat)))) == ["GlobalAveragePool", "Flatten", "Gemm", "Clip"]


@pytest.mark.parametrize("name", SIGMOIDS)
def test_a_hard_sigmoid_of_what_others_read_is_named(name: str, net: Any, simplified: Any) -> None:
    x = net.conv("x")
    last = net.add("Add", x, SIGMOIDS[name](net, x))
    assert simplified(net.model(last)) == ["Conv", "HardSigmoid", "Add"]


@pytest.mark.parametrize("name", SWISHES)
def test_a_hard_swish_is_made_of_integer_operators(name: str, net: Any, simplified: Any) -> None:
    model = net.model(net.conv(SWISHES[name](net, net.conv("x"))))
    plain = ["HardSwish"] if name == "operator" else ["HardSigmoid", "Mul"]
    assert simplified(model) == ["Conv", *plain, "Conv"]
    after, notes = integer_gates(simplify(model)[0])
    assert_same(model, after)
    assert names_of(after) == ["Conv", "Conv", "Clip", "Mul", "Conv"]
    assert notes == ({"step": "hard sigmoids and swishes to integer operators", "nodes": 1},)
    assert next(item.i for item in after.graph.node[1].attribute if item.name == "group") == 8


@pytest.mark.parametrize("operator", ["HardSwish", "HardSigmoid"])
def test_gates_of_vectors_pass_through_an_image_of_one_pixel(operator: str, net: Any) -> None:
    flat = net.add("Flatten", net.add("GlobalAveragePool", "x"))
    model = net.model(net.linear(net.add(operator, flat)))
    after, _ = integer_gates(simplify(model)[0])
    assert_same(model, after)
    gate = ["Unsqueeze", "Conv", "Clip", "Flatten", *(["Mul"] if operator == "HardSwish" else [])]
    assert names_of(after) == ["GlobalAveragePool", "Flatten", *gate, "Gemm"]


def test_gates_of_tokens_stay(net: Any) -> None:
    model = simplify(net.model(net.add("HardSwish", net.add("Reshape", "x", net.const([0, 8, 36], "int64")))))[0]
    after, notes = integer_gates(model)
    assert names_of(after) == ["Reshape", "HardSwish"]
    assert notes == ()


NOT_GATES: dict[str, Callable[[Any, str], str]] = {
    "divided by something else": lambda net, x: net.add("Div", relu6(net, x), net.const(5.0)),
    "a divisor": lambda net, x: net.add("Div", net.const(6.0), net.add("Add", relu6(net, x), net.const(1.0))),
    "not from zero": lambda net, x: net.add("Div", clip(net, net.add("Add", x, net.const(3.0)), 1.0), net.const(6.0)),
    "open": lambda net, x: net.add("Div", clip(net, net.add("Add", x, net.const(3.0)), 0.0, None), net.const(6.0)),
    "per channel": lambda net, x: net.add("Div", clip(net, net.add("Add", x, net.const(net.normal(8, 1, 1)))), net.const(6.0)),
    "falling sum": lambda net, x: net.add("Div", clip(net, net.add("Sub", net.const(3.0), x)), net.const(6.0)),
}


@pytest.mark.parametrize("name", NOT_GATES)
def test_what_only_looks_like_a_hard_sigmoid_stays(name: str, net: Any, simplified: Any) -> None:
    x = net.conv("x")
    assert "HardSigmoid" not in simplified(net.model(net.add("Add", x, NOT_GATES[name](net, x))))


def test_a_swish_with_a_smooth_sigmoid_stays(net: Any) -> None:
    x = net.conv("x")
    model = net.model(net.add("Mul", x, net.add("Sigmoid", x)))
    assert simplify(model)[1] == ()
    assert integer_gates(model)[1] == ()


CLAMPS: dict[str, tuple[Callable[[Any], str], list[str]]] = {
    "relu6": (lambda net: net.add("Min", net.add("Max", "x", net.const(0.0)), net.const(6.0)), ["Clip"]),
    "the other way round": (lambda net: net.add("Max", net.const(0.0), net.add("Min", net.const([6.0]), "x")), ["Clip"]),
    "relu": (lambda net: net.add("Max", "x", net.const(0.0)), ["Relu"]),
    "relu of a clip": (lambda net: net.add("Relu", clip(net, "x", -1.0, 2.0)), ["Clip"]),
    "relu twice": (lambda net: net.add("Relu", net.add("Relu", "x")), ["Relu"]),
    "clips that do not meet": (lambda net: clip(net, clip(net, "x", 0.0, 1.0), 2.0, 3.0), ["Clip"]),
    "open clip": (lambda net: net.add("Clip", net.add("Relu", "x")), ["Relu"]),
    "clip whose ends cross": (lambda net: clip(net, clip(net, "x", 2.0, 1.0), 0.0, 6.0), ["Clip", "Clip"]),
    "per channel": (lambda net: net.add("Max", "x", net.const(net.normal(8, 1, 1))), ["Max"]),
    "three of them": (lambda net: net.add("Max", "x", net.const(0.0), net.const(1.0)), ["Max"]),
    "more axes": (lambda net: net.add("Min", "x", net.const(np.ones((1,) * 5))), ["Min"]),
    "read by two": (lambda net: net.add("Add", net.add("Relu", inner := net.add("Relu", "x")), inner), ["Relu", "Relu", "Add"]),
}


@pytest.mark.parametrize("name", CLAMPS)
def test_clamps(name: str, net: Any, simplified: Any) -> None:
    piece, expected = CLAMPS[name]
    assert simplified(net.model(piece(net))) == expected
