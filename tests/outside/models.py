"""Other people's ONNX files, written node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 32
LEVELS = {"bright": 178, "dark": 102, "mid": 140}
"""The mean byte of each class; in [-1, 1] that is 0.4, -0.2 and 0.1."""
QUICK = [
    part
    for setting in ("quantize.effort=fast", "quantize.calibration_images=24", "export.parity_images=6")
    for part in ("--set", setting)
]
MACS = 2_289_088
"""Half of what torch.utils.flop_counter counts of timm's test_efficientnet."""
MEAN, STD = (np.reshape(values, (3, 1, 1)).astype(np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
FLOAT, BYTE = TensorProto.FLOAT, TensorProto.UINT8


def brightness(
    path: Path,
    *,
    classes: Sequence[str] = tuple(LEVELS),
    shape: Sequence[Any] = ("N", 3, SIDE, SIDE),
    kind: int = FLOAT,
    last: str = "",
    second: bool = False,
    names: tuple[str, str] = ("pixels", "scores"),
    opset: int = 17,
    reshape: Sequence[int] = (),
) -> Path:
    """Write a classifier that measures the mean of pixels in [-1, 1]: the nearest of its classes' means has the largest score.

    -(m - c)^2 = 2 c m - c^2 - m^2, and the last term is the same for all.
    """
    centres = np.array([LEVELS.get(name, 1000) / 127.5 - 1 for name in classes], np.float32)
    weight = np.repeat(40 * centres[:, None] / 3, 3, axis=1)
    constants = {"w": weight, "b": -20 * centres**2, "half": np.full((1, 1, 1, 1), 127.5, np.float32)}
    nodes, x = [], names[0]

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [f"{operator}{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    if kind == BYTE:
        x = add("Cast", x, to=FLOAT)
        x = add("Div", x, "half")
        constants["one"] = np.ones((1, 1, 1, 1), np.float32)
        x = add("Sub", x, "one")
    if shape[3] in (1, 3):
        x = add("Transpose", x, perm=[0, 3, 1, 2])
    x = add("GlobalAveragePool", x)
    if reshape:
        constants["to"] = np.array(reshape, np.int64)
        x = add("Reshape", x, "to")
    else:
        x = add("Flatten", x, axis=1)
    if 1 in (shape[1], shape[3]):
        constants["w"] = weight.sum(axis=1, keepdims=True)
    x = add("Gemm", x, "w", "b", transB=1)
    scores = add(last, x, axis=1) if last else x
    nodes[-1].output[0] = names[1]
    outputs = [helper.make_tensor_value_info(names[1], FLOAT, [shape[0], len(classes)])]
    if second:
        add("Relu", scores if last else names[1])
        outputs.append(helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, [shape[0], len(classes)]))
    graph = helper.make_graph(
        nodes,
        "someone's",
        [helper.make_tensor_value_info(names[0], kind, shape)],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model.metadata_props.add(key="source", value="/home/someone/secret")
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
