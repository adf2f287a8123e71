"""Half precision: the contract's types outside, float16 inside, and what float16 cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgetune.errors import GraphError
from edgetune.onnxfile import read_metadata
from edgetune.quantize.half import to_half


def test_a_half_model_keeps_the_contract_and_is_near_fp32(
    net: Any, as_artefact: Any, dataset: Any, logits: Any, tmp_path: Path
) -> None:
    source = as_artefact(net.head(net.add("Relu", net.conv(net.stem()))))
    half = to_half(source, dataset, folder=tmp_path / "fp16")
    model = onnx.load(half.path)
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [
        TensorProto.UINT8,
        TensorProto.FLOAT,
    ]
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1]
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    assert half.precision == "fp16"
    assert half.size_bytes < source.size_bytes
    assert read_metadata(model).provenance["fp32_sha256"] == source.sha256
    first, second = logits(source.path), logits(half.path)
    assert not np.array_equal(first, second)
    assert np.abs(first - second).max() < 0.01 * np.abs(first).max()
    assert half.parity is not None
    assert 0 < half.parity.nmse < 1e-4


def test_a_weight_that_float16_cannot_say_is_refused_by_name(net: Any, as_artefact: Any, dataset: Any, tmp_path: Path) -> None:
    x = net.stem()
    weight = net.const(1e6 * net.weight(8, 8, 1, 1))
    source = as_artefact(net.head(net.add("Conv", x, weight)))
    with pytest.raises(GraphError, match=rf"the weight {weight} has a value of .*, and float16 ends at 65504"):
        to_half(source, dataset, folder=tmp_path / "fp16")
