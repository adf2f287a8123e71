"""The stage: rules of the profiles, the integer entry, which images calibrate, what is refused, equal bytes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.errors import DataError, GraphError
from edgetune.files import sha256_file
from edgetune.onnxfile import read_metadata
from edgetune.profile import Quantization
from edgetune.progress import Silent
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.prepare import prepare
from edgetune.quantize.samples import calibration_rows
from edgetune.quantize.stage import quantize
from edgetune.recipe import QuantizeRecipe

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def small(net: Any, **entry: Any) -> onnx.ModelProto:
    x = net.stem(**entry)
    return net.head(net.add("Relu", net.add("Add", x, net.conv(net.add("Relu", net.conv(x, group=8))))))


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"weight_type": "uint8"},
        {"reduce_range": True},
        {"weight_type": "uint8", "reduce_range": True},
        {"per_channel": False},
        {"weight_type": "uint8", "per_channel": False},
        {"symmetric_activations": True},
        {"activation_type": "int8"},
        {"activation_type": "int8", "symmetric_activations": True},
        {"ranges": "minmax"},
        {"bias_correction": False},
    ],
    ids=str,
)
def test_all_rules_give_a_file_near_fp32(rules: dict[str, Any], net: Any, quantized: Any, logits: Any, tmp_path: Path) -> None:
    model = quantized(small(net), **rules)
    fp32, int8 = logits(tmp_path / "fp32" / "model.onnx"), logits(model.path)
    assert np.square(int8 - fp32).sum() < 0.03 * np.square(fp32 - fp32.mean(axis=0)).sum()
    assert model.parity.images == 48
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(model.path).graph.initializer}
    weights = [array for name, array in stored.items() if name.endswith(".weight.quantized")]
    zero_points = [array for name, array in stored.items() if name.endswith(".weight.zero_point")]
    assert {str(array.dtype) for array in weights} == {rules.get("weight_type", "int8")}
    middle = 128 if "weight_type" in rules else 0
    assert all((zero == middle).all() for zero in zero_points)
    largest = max(np.abs(array.astype(int) - middle).max() for array in weights)
    assert largest == (63 if rules.get("reduce_range") else 127)
    assert all((zero.ndim == 1) == rules.get("per_channel", True) for zero in zero_points)


def test_what_the_runtime_leaves_in_float_is_named(net: Any, quantized: Any) -> None:
    model = quantized(small(net), activation_type="int8", symmetric_activations=True)
    assert model.float_nodes
    assert all("quantized, but ONNX Runtime has no integer kernel" in node for node in model.float_nodes)
    assert model.warnings[0].startswith(f"ONNX Runtime still computes {len(model.float_nodes)} layers in float")


def test_the_entry_has_no_float_arithmetic(net: Any, quantized: Any) -> None:
    operators = quantized(small(net)).operators
    assert not operators.keys() & {"Cast", "Mul", "Sub", "QuantizeLinear"}
    assert operators["QLinearConv"] == 3


def test_the_entry_is_exact_apart_from_the_borders(net: Any, dataset: Any) -> None:
    graph = prepare(small(net), Quantization())
    changed = integer_entry(graph)
    assert changed.entry is not None
    conv = next(node for node in graph.model.graph.node if node.op_type == "Conv")
    images = np.array(dataset.images("test"))[:8]
    before, after = (_value(value.model, conv.output[0], images) for value in (graph, changed))
    assert np.abs(before - after)[:, :, 1:, 1:].max() < 1e-5 * np.abs(before).max()
    # The left and upper borders are padded: with 128 in place of 127.5.
    assert 0 < np.abs(before - after).max() < 0.02 * np.abs(before).max()


def _value(model: onnx.ModelProto, name: str, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run([name], {"image": images})[0]
    return result


def test_means_that_are_far_apart_keep_the_float_entry(net: Any, quantized: Any) -> None:
    model = quantized(small(net, **IMAGENET))
    assert {"Cast", "Mul", "Sub"} <= model.operators.keys()
    step = next(step for step in model.steps if step["step"] == "integer entry")
    assert "too far apart" in step["reason"]


def test_a_shared_first_weight_keeps_the_float_entry(net: Any) -> None:
    x = net.entry()
    weight, bias = net.const(net.weight(3, 3, 3, 3)), net.const(np.zeros(3))
    model = net.head(net.add("Conv", net.add("Relu", net.add("Conv", x, weight, bias)), weight, bias), 3)
    assert integer_entry(prepare(model, Quantization())).entry is None


def test_another_process_writes_the_same_bytes(net: Any, quantized: Any, dataset: Any, tmp_path: Path) -> None:
    model = quantized(small(net))
    source = tmp_path / "fp32" / "model.onnx"
    program = f"""
from pathlib import Path
from edgetune.artefacts import Dataset, OnnxModel
from edgetune.profile import load_profile
from edgetune.progress import Silent
from edgetune.quantize.stage import quantize
from edgetune.recipe import QuantizeRecipe
source = OnnxModel.model_validate_json({model.model_copy(update={"sha256": sha256_file(source)}).model_dump_json()!r})
data = Dataset.model_validate_json({dataset.model_dump_json()!r}).at(Path({str(dataset.folder)!r}))
source = source.at(Path({str(source.parent)!r}))
out = Path({str(tmp_path / "again")!r})
print(quantize(source, data, QuantizeRecipe(), load_profile("x86-vnni"), seed=0, folder=out, progress=Silent()).sha256)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == model.sha256


def test_metadata_survives_and_names_the_source(net: Any, quantized: Any, tmp_path: Path) -> None:
    model = quantized(small(net))
    labels, preprocessing, provenance, heads = read_metadata(onnx.load(model.path))
    assert labels == ("Ähre", "blatt", "花")
    assert preprocessing == model.preprocessing
    assert provenance == {"fp32_sha256": sha256_file(tmp_path / "fp32" / "model.onnx")}
    assert heads == model.heads


def test_test_images_do_not_calibrate(make_dataset: Any, as_artefact: Any, profile: Any, net: Any, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    dataset = make_dataset(tmp_path, {"train": images, "test": images[:12]})
    rows, dropped = calibration_rows(dataset, 100, 0)
    assert sorted(rows) == list(range(12, 30))
    assert dropped == 12
    told = {"seed": 0, "folder": tmp_path / "int8", "progress": Silent()}
    model = quantize(as_artefact(small(net)), dataset, QuantizeRecipe(), profile, **told)
    assert model.warnings == ("12 train images are also in the test set and were left out of the calibration",)
    with pytest.raises(DataError, match="no train image is left"):
        calibration_rows(make_dataset(tmp_path / "same", {"train": images, "test": images}), 100, 0)


def test_classes_take_turns_and_the_seed_draws(dataset: Any) -> None:
    rows, _ = calibration_rows(dataset, 12, 0)
    labels = dataset.labels("train")
    assert Counter(int(labels[row]) for row in rows) == {0: 4, 1: 4, 2: 4}
    assert calibration_rows(dataset, 12, 0)[0] == rows
    assert calibration_rows(dataset, 12, 1)[0] != rows


def test_foreign_graphs_are_brought_into_form(net: Any, quantized: Any, logits: Any, tmp_path: Path) -> None:
    """Constants as nodes, initializers as inputs, nodes without names, nodes that nothing needs."""
    model = small(net)
    graph = model.graph
    tensors = list(graph.initializer)
    del graph.initializer[:]
    graph.initializer.extend(tensors[::2])
    graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors[::2])
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors[1::2]] + list(graph.node)
    conv = next(node for node in nodes if node.op_type == "Conv")
    nodes.append(helper.make_node("Conv", conv.input, ["unused"], pads=[1] * 4))
    for node in nodes:
        node.name = ""
    del graph.node[:]
    graph.node.extend(nodes)
    result = quantized(model)
    assert result.operators["QLinearConv"] == 3
    assert not result.float_nodes
    fp32 = logits(tmp_path / "fp32" / "model.onnx")
    assert np.square(logits(result.path) - fp32).sum() < 0.02 * np.square(fp32 - fp32.mean(axis=0)).sum()


@pytest.mark.parametrize(
    ("attributes", "bias"), [({"alpha": 0.5}, (3,)), ({"beta": 0.5}, (3,)), ({}, (1, 3)), ({}, ()), ({}, None)]
)
def test_a_gemm_of_any_form_is_quantized(
    attributes: dict[str, float], bias: tuple[int, ...] | None, net: Any, quantized: Any, logits: Any, tmp_path: Path
) -> None:
    flat = net.add("Flatten", net.add("GlobalAveragePool", net.stem()))
    extra = [net.const(np.full(bias, 0.3))] if bias is not None else []
    result = quantized(net.finish(net.add("Gemm", flat, net.const(net.weight(8, 3)), *extra, **attributes)))
    assert not result.float_nodes
    assert result.operators["QLinearConv"] == result.operators["QGemm"] == 1
    fp32 = logits(tmp_path / "fp32" / "model.onnx")
    assert np.square(logits(result.path) - fp32).sum() < 0.02 * np.square(fp32 - fp32.mean(axis=0)).sum()


def test_bias_correction_takes_the_mean_error_away(net: Any, quantized: Any, logits: Any, tmp_path: Path) -> None:
    def shift(**recipe: Any) -> float:
        model = quantized(small(type(net)()), **recipe)
        return float(np.abs((logits(model.path) - logits(tmp_path / "fp32" / "model.onnx")).mean(axis=0)).max())

    assert shift(reduce_range=True, per_channel=False) < 0.5 * shift(
        reduce_range=True, per_channel=False, bias_correction=False
    )


def test_weights_that_are_no_numbers_are_named(net: Any) -> None:
    model = small(net)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[2] == 3)
    weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.nan, np.float32), weight.name))
    with pytest.raises(GraphError, match=r"conv_\d+: c\d+ holds NaN"):
        prepare(model, Quantization())


def test_activations_that_are_no_numbers_are_named(net: Any, quantized: Any) -> None:
    x = net.add("Log", net.stem())
    with pytest.raises(GraphError, match="NaN or an infinity on the calibration images"):
        quantized(net.head(net.conv(x)))


def test_control_flow_is_refused(net: Any) -> None:
    model = small(net)
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    model.graph.node.append(helper.make_node("If", ["c0"], ["y"], name="maybe", then_branch=branch, else_branch=branch))
    with pytest.raises(GraphError, match="maybe: If holds a graph"):
        prepare(model, Quantization())


def test_a_graph_without_weights_is_refused(net: Any) -> None:
    flat = net.add("Flatten", net.add("GlobalAveragePool", net.entry()))
    with pytest.raises(GraphError, match="nothing to quantize"):
        prepare(net.finish(flat), Quantization())
