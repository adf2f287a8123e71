"""All rewrites together: what has no effect, what is constant, names, random graphs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgetune.errors import GraphError
from edgetune.rewrites.simplify import integer_gates, simplify

from .writer import Writer, assert_same, names_of

IDLE: dict[str, Callable[[Any, str], str]] = {
    "identity": lambda net, x: net.add("Identity", x),
    "dropout": lambda net, x: net.add("Dropout", x),
    "dropout with a ratio": lambda net, x: net.add("Dropout", x, net.const(0.5), net.const(False, "bool")),
    "cast": lambda net, x: net.add("Cast", x, to=TensorProto.FLOAT),
    "cast like": lambda net, x: net.add("CastLike", x, net.const(1.0)),
    "pad": lambda net, x: net.add("Pad", x, net.const([0] * 8, "int64")),
    "transpose": lambda net, x: net.add("Transpose", x, perm=[0, 1, 2, 3]),
    "transposes": lambda net, x: net.add("Transpose", net.add("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2]),
    "concat of one": lambda net, x: net.add("Concat", x, axis=1),
    "open clip": lambda net, x: net.add("Clip", x),
    "whole slice": lambda net, x: net.add("Slice", x, *(net.const([value], "int64") for value in (0, 2**40, 1))),
    "expand": lambda net, x: net.add("Expand", x, net.const([8, 1, 1], "int64")),
    "several": lambda net, x: net.add("Identity", net.add("Dropout", net.add("Identity", x))),
}


@pytest.mark.parametrize("place", ["inside", "at the output", "at the input"])
@pytest.mark.parametrize("name", IDLE)
def test_what_has_no_effect_goes(name: str, place: str, net: Any, simplified: Any) -> None:
    if place == "inside":
        last = net.add("Relu", IDLE[name](net, net.add("Sigmoid", "x")))
    elif place == "at the output":
        last = IDLE[name](net, net.add("Relu", net.add("Sigmoid", "x")))
    else:
        last = net.add("Relu", net.add("Sigmoid", IDLE[name](net, "x")))
    assert simplified(net.model(last)) == ["Sigmoid", "Relu"]


EFFECTIVE: dict[str, Callable[[Any], str]] = {
    "identity of the input": lambda net: net.add("Identity", "x"),
    "turned slice": lambda net: net.add("Slice", "x", *(net.const([value], "int64") for value in (-1, -(2**40), 1, -1))),
    "half slice": lambda net: net.add("Slice", "x", *(net.const([value], "int64") for value in (0, 4, 1))),
}


@pytest.mark.parametrize("name", EFFECTIVE)
def test_what_has_an_effect_stays(name: str, net: Any) -> None:
    assert simplify(net.model(EFFECTIVE[name](net)))[1] == ()


def test_an_output_that_is_read_inside_is_not_renamed(net: Any, simplified: Any) -> None:
    inner = net.add("Relu", "x")
    assert simplified(net.model(inner, net.add("Identity", inner))) == ["Relu", "Identity"]
    renamed = net.add("Identity", net.add("Sigmoid", "x"))
    assert simplified(net.model(net.add("Relu", renamed), renamed)) == ["Sigmoid", "Relu"]


def test_transposes_merge(net: Any, simplified: Any) -> None:
    first = net.add("Transpose", "x", perm=[0, 2, 3, 1])
    assert simplified(net.model(net.add("Transpose", first, perm=[0, 2, 1, 3]))) == ["Transpose"]


def test_a_dropout_that_trains_stays(net: Any) -> None:
    model = net.model(net.add("Dropout", "x", net.const(0.5), net.const(True, "bool")))
    assert names_of(simplify(model)[0]) == ["Dropout"]


def test_what_depends_on_constants_only_is_computed(net: Any, simplified: Any) -> None:
    net.nodes.append(helper.make_node("Constant", [], ["two"], value_float=2.0))
    net.nodes.append(helper.make_node("Constant", [], ["shape"], value_ints=[8, 1, 1]))
    net.nodes.append(helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    shifted = net.add("Exp", net.add("Add", "zeros", "two"))
    weight = net.add("Transpose", net.const(net.normal(1, 1, 8, 8)), perm=[3, 2, 1, 0])
    last = net.add("Mul", net.add("Conv", "x", weight), shifted)
    assert simplified(net.model(last)) == ["Conv"]


def test_what_is_drawn_at_random_is_not_a_constant(net: Any) -> None:
    shape = net.const([8, 6, 6], "float32")
    model = net.model(net.add("Add", "x", net.add("RandomNormalLike", shape)), shape=("N", 8, 1, 3))
    assert names_of(simplify(model)[0]) == ["RandomNormalLike", "Add"]


def test_constants_that_cannot_be_computed_are_named(net: Any) -> None:
    net.add("Reshape", net.const(np.ones(6)), net.const([4], "int64"))
    model = net.model(net.add("Relu", "x"))
    model.graph.node[1].CopyFrom(helper.make_node("Add", ["x", "reshape_0.out"], ["relu_1.out"]))
    with pytest.raises(GraphError, match=r"cannot be computed[\s\S]*reshape_0"):
        simplify(model)


def test_defaults_of_inputs_are_constants(net: Any, simplified: Any) -> None:
    model = net.model(net.norm(net.conv("x")))
    model.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer)
    assert simplified(model) == ["Conv"]
    assert [value.name for value in simplify(model)[0].graph.input] == ["x"]


def test_metadata_stays_and_notes_say_what_was_done(net: Any) -> None:
    model = net.model(net.norm(net.add("Identity", net.conv("x"))))
    model.metadata_props.add(key="labels", value="[]")
    after, notes = simplify(model)
    assert after.metadata_props == model.metadata_props
    assert notes == ({"step": "nodes without an effect removed", "nodes": 1}, {"step": "batch norms folded", "nodes": 1})


def pieces(net: Writer, draw: Callable[[int], int], x: str, earlier: str) -> str:
    """Add one of the operators that rewrites are about."""
    choices: list[Callable[[], str]] = [
        lambda: net.conv(x),
        lambda: net.conv(x, bias=False, group=8),
        lambda: net.norm(x),
        lambda: net.add("Mul", x, net.const(net.normal(8, 1, 1))),
        lambda: net.add("Sub", net.const(net.normal()), x),
        lambda: net.add("Add", x, net.const(3.0)),
        lambda: net.add("Div", x, net.const(6.0)),
        lambda: net.add("Clip", x, net.const(0.0), net.const(6.0)),
        lambda: net.add("Relu", x),
        lambda: net.add("Min", x, net.const(1.0)),
        lambda: net.add("HardSigmoid", x),
        lambda: net.add("HardSwish", x),
        lambda: net.add("Mul", x, net.add("HardSigmoid", net.conv(net.add("ReduceMean", x, net.const([2, 3], "int64"))))),
        lambda: net.add("Add", x, earlier),
        lambda: net.add("Mul", earlier, x),
        lambda: net.add("Identity", x),
        lambda: net.add("Transpose", x, perm=[0, 1, 3, 2]),
        lambda: net.add("Reshape", x, net.add("Shape", earlier)),
        lambda: net.conv(net.add("Pad", x, net.const([0, 0, 1, 1] * 2, "int64")), pads=[0] * 4),
    ]
    return choices[draw(len(choices))]()


@settings(max_examples=30)
@given(data=st.data())
def test_random_graphs_compute_the_same(data: st.DataObject) -> None:
    net = Writer(data.draw(st.integers(0, 9)))
    tensors = ["x", net.conv("x")]
    for _ in range(data.draw(st.integers(1, 8))):
        earlier = tensors[data.draw(st.integers(0, len(tensors) - 1))]
        tensors.append(pieces(net, lambda count: data.draw(st.integers(0, count - 1)), tensors[-1], earlier))
    outputs = {tensors[-1], tensors[data.draw(st.integers(1, len(tensors) - 1))]}
    model = net.model(*sorted(outputs))
    after, _ = simplify(model)
    assert_same(model, after)
    assert_same(model, integer_gates(after)[0])
    assert simplify(after)[1] == ()
    assert "Shape" not in names_of(after)


def test_control_flow_functions_and_weights_elsewhere_are_refused(net: Any) -> None:
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    model = net.model(net.conv("x"))
    model.graph.node.append(helper.make_node("If", ["c0"], ["y"], name="maybe", then_branch=branch, else_branch=branch))
    with pytest.raises(GraphError, match=r"control flow[\s\S]*maybe: If holds a graph"):
        simplify(model)
    model = net.model(net.conv("x"))
    model.functions.append(helper.make_function("own", "f", [], [], [], model.opset_import))
    with pytest.raises(GraphError, match="f: is a function of the model's own"):
        simplify(model)
    model = net.model(net.conv("x"))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(GraphError, match=r"in a file of their own[\s\S]*external data"):
        simplify(model)


def test_weights_that_are_no_numbers_do_not_stop_it(net: Any) -> None:
    """They are refused with their names where that is asked for: in `quantize.prepare`."""
    weight = net.const(np.full((8, 8, 1, 1), np.nan))
    after, _ = simplify(net.model(net.norm(net.add("Conv", "x", weight))))
    assert names_of(after) == ["Conv"]
    assert np.isnan(onnx.numpy_helper.to_array(next(t for t in after.graph.initializer if t.name == weight))).all()
