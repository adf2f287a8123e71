"""Means over the whole map, in every spelling."""

from __future__ import annotations

from typing import Any

import pytest

from edgetune.rewrites.simplify import simplify

POOLED = {0: ["GlobalAveragePool", "Flatten"], 1: ["GlobalAveragePool"]}


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3, 2], [-2, 3]])
@pytest.mark.parametrize("opset", [13, 18])
def test_means_over_height_and_width_become_pools(
    opset: int, axes: list[int], keepdims: int, net: Any, simplified: Any
) -> None:
    """Up to opset 17 the axes are an attribute, then an input."""
    if opset == 13:
        last = net.add("ReduceMean", "x", axes=axes, keepdims=keepdims)
    else:
        last = net.add("ReduceMean", "x", net.const(axes, "int64"), keepdims=keepdims)
    assert simplified(net.model(last, opset=opset)) == POOLED[keepdims]


@pytest.mark.parametrize(
    ("axes", "keepdims", "shape"),
    [
        ([1, 2], 1, None),
        ([3], 1, None),
        ([1, 2, 3], 0, None),
        ([2, 3], 1, ("N", 8, 6, 6, 6)),
        ([2], 1, ("N", 8, 6)),
        ([], 1, None),
    ],
    ids=str,
)
def test_other_means_stay(axes: list[int], keepdims: int, shape: Any, net: Any, simplified: Any) -> None:
    given = [net.const(axes, "int64")] if axes else []
    last = net.add("ReduceMean", "x", *given, keepdims=keepdims)
    assert simplified(net.model(last, shape=shape or ("N", 8, 6, 6))) == ["ReduceMean"]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("first", "second"), [(3, 2), (2, 3), (-1, -2), (2, -1)])
def test_two_means_in_a_row_are_one_pool(first: int, second: int, keepdims: int, net: Any, simplified: Any) -> None:
    second = 2 if not keepdims and second in (3, -2) else second
    inner = net.add("ReduceMean", "x", axes=[first], keepdims=keepdims)
    last = net.add("ReduceMean", inner, axes=[second], keepdims=keepdims)
    assert simplified(net.model(last, opset=13)) == POOLED[keepdims]


def test_a_head_keeps_one_flatten(net: Any, simplified: Any) -> None:
    mean = net.add("ReduceMean", "x", net.const([2, 3], "int64"), keepdims=0)
    last = net.linear(net.add("Flatten", net.add("Dropout", mean)))
    assert simplified(net.model(last)) == ["GlobalAveragePool", "Flatten", "Gemm"]


@pytest.mark.parametrize(
    ("keys", "replaced"),
    [
        ({"kernel_shape": [6, 6]}, True),
        ({"kernel_shape": [6, 6], "strides": [6, 6], "count_include_pad": 1, "ceil_mode": 1}, True),
        ({"kernel_shape": [6, 6], "auto_pad": "VALID"}, True),
        ({"kernel_shape": [6, 5]}, False),
        ({"kernel_shape": [6, 6], "pads": [1, 1, 1, 1]}, False),
        ({"kernel_shape": [6, 6], "auto_pad": "SAME_UPPER"}, False),
    ],
    ids=str,
)
def test_average_pools_of_the_whole_map(keys: dict[str, Any], replaced: bool, net: Any, simplified: Any) -> None:
    assert simplified(net.model(net.add("AveragePool", "x", **keys))) == (
        ["GlobalAveragePool"] if replaced else ["AveragePool"]
    )


def test_a_map_of_unknown_size_keeps_its_pool(net: Any) -> None:
    model = net.model(net.add("AveragePool", "x", kernel_shape=[2, 2]), shape=("N", 8, "H", "W"))
    assert simplify(model)[1] == ()
