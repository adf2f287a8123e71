"""From torch networks to files that keep the contract."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgetune.device.session import open_session
from edgetune.errors import GraphError
from edgetune.onnxfile import read_metadata
from edgetune.profile import ModelCaps


@pytest.mark.parametrize("name", ["efficientnet", "vit"])
def test_torch_and_the_file_agree_for_every_batch_size(name: str, request: pytest.FixtureRequest, dataset: Any) -> None:
    exported = request.getfixturevalue(name)
    images = np.array(dataset.images("test"))
    mean, std = (np.reshape(value, (1, 1, 1, 3)) for value in (exported.checkpoint.mean, exported.checkpoint.std))
    normal = ((images / 255.0 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = exported.network(torch.from_numpy(np.ascontiguousarray(normal))).numpy()
    session = open_session(exported.value.path, {})
    for size in (1, 3, 10):
        got = session.run(["logits"], {"image": images[:size]})[0]
        assert np.abs(got - expected[:size]).max() < 1e-4 * np.abs(expected).max()
    assert exported.value.parity.images == 10
    assert exported.value.parity.max_abs < 1e-4 * np.abs(expected).max()
    assert exported.value.parity.top1_agreement_percent == 100.0


def test_the_graph_is_what_runtimes_fuse(efficientnet: Any) -> None:
    value = efficientnet.value
    assert value.operators.keys() == {
        "Cast", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "Mul", "Sigmoid", "Sub", "Transpose",
    }  # fmt: skip
    assert value.operators["GlobalAveragePool"] == 3
    assert value.warnings == ()
    onnx.checker.check_model(efficientnet.model, full_check=True)
    assert (efficientnet.model.opset_import[0].version, efficientnet.model.ir_version) == (18, 8)


def test_attention_computes_no_shapes(vit: Any) -> None:
    """What is left is the class token, repeated for each image of the batch."""
    operators = vit.value.operators
    assert operators["Shape"] == operators["Expand"] == 1
    assert "the graph computes shapes at run time" in vit.value.warnings[0]


def test_layers_keep_the_names_of_the_checkpoint(efficientnet: Any) -> None:
    names = {node.name for node in efficientnet.model.graph.node if node.op_type in ("Conv", "Gemm")}
    layers = {name for name, module in efficientnet.network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert names == layers


@pytest.mark.parametrize("name", ["efficientnet", "vit"])
def test_no_name_stands_twice(name: str, request: pytest.FixtureRequest) -> None:
    graph = request.getfixturevalue(name).model.graph
    nodes = [node.name for node in graph.node]
    tensors = [output for node in graph.node for output in node.output] + [tensor.name for tensor in graph.initializer]
    assert len(set(nodes)) == len(nodes)
    assert len(set(tensors)) == len(tensors)


def test_the_file_tells_nothing_of_the_machine(efficientnet: Any) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(efficientnet.model)
    for tensor in model.graph.initializer:
        tensor.raw_data = b""
    content = model.SerializeToString()
    for telling in (rb"/[a-z]+/", rb"site-packages", rb"\.py", rb"0x[0-9a-f]{4}", rb"pytorch", rb"Traceback"):
        assert not re.search(telling, content), telling
    assert not model.graph.value_info


def test_metadata_is_enough_to_use_the_file(efficientnet: Any) -> None:
    labels, preprocessing, provenance, heads = read_metadata(efficientnet.model)
    assert labels == ("Ähre", "blatt", "花")
    assert preprocessing == efficientnet.checkpoint.preprocessing
    assert provenance == {"edgetune": "test"}
    assert heads == efficientnet.checkpoint.heads


def test_macs_are_those_of_one_image(efficientnet: Any) -> None:
    total = 0
    hooks = [
        module.register_forward_hook(lambda layer, _, output: sums.append(layer.weight[0].numel() * output.numel()))
        for module in efficientnet.network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    sums: list[int] = []
    with torch.inference_mode():
        efficientnet.network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    total = sum(sums)
    assert efficientnet.value.macs == total


def test_the_network_itself_is_not_changed(vit: Any) -> None:
    assert vit.network.blocks[0].attn.fused_attn


PROGRAM = """
import sys
from pathlib import Path
import torch
from torch import nn
from edgetune.export.rewrite import rename, strip
from edgetune.export.trace import deployable, trace

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6())
network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)])
model = trace(deployable(network.eval(), (0.5,) * 3, (0.5,) * 3), 16, 16)
strip(model)
rename(model.graph)
Path(sys.argv[1]).write_bytes(model.SerializeToString(deterministic=True))
"""


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / name)], check=True, capture_output=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_batch_norms_are_folded_and_clamps_are_clips(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "a")], check=True, capture_output=True)
    graph = onnx.load(tmp_path / "a").graph
    assert [node.op_type for node in graph.node][4:6] == ["Conv", "Clip"]


@pytest.mark.parametrize("caps", [ModelCaps(opset=17, ir_version=10), ModelCaps(opset=20, ir_version=7)], ids=str)
def test_a_target_that_cannot_read_the_file_is_refused(caps: ModelCaps, run_export: Any, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=f"the target reads opset {caps.opset} and IR {caps.ir_version}"):
        run_export(nn.Identity(), tmp_path, caps=caps)


def test_an_operator_set_that_is_not_written_is_refused(run_export: Any, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"export\.opset = 17 is not written here"):
        run_export(nn.Identity(), tmp_path, opset=17)


class Eigenvalues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x[:, 0]).real[:, :3]


class OneImage(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] != 2:
            return x.mean((2, 3))
        return x.amax((2, 3))


def test_an_operator_without_counterpart_is_named(run_export: Any, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"(?s)cannot be exported at opset 18.*linalg_eig"):
        run_export(Eigenvalues(), tmp_path)


def test_a_network_for_one_batch_size_is_refused(run_export: Any, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="fixed batch; got 2; expected any"):
        run_export(OneImage(), tmp_path)
