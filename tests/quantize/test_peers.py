"""The comparison with other quantizers: what they are given and give back, and that the table hides nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

TOOLS = Path(__file__).parents[2] / "tools"
PEER = "ORT quantize_static, U8S8 per channel"


@pytest.fixture(scope="module")
def tool() -> Callable[[str], ModuleType]:
    """Import a module of `tools/`, as a script there does."""

    def load(name: str) -> ModuleType:
        before = list(sys.path)
        sys.path[:0] = [str(TOOLS), str(TOOLS / "peers")]
        try:
            return importlib.import_module(name)
        finally:
            sys.path[:] = before

    return load


def small(net: Any, **entry: Any) -> onnx.ModelProto:
    x = net.stem(**entry)
    return net.head(net.add("Relu", net.add("Add", x, net.conv(x))))


def test_a_network_cut_from_its_entry_and_put_back_is_the_same(
    net: Any, tool: Any, as_artefact: Any, logits: Any, tmp_path: Path
) -> None:
    source = as_artefact(small(net, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    contract = tool("contract")
    entry, network = contract.split(onnx.load(source.path))
    assert network.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert {"Cast", "Transpose"}.isdisjoint(node.op_type for node in network.graph.node)
    # As quantizers do: other names at both ends.
    network.graph.node[0].input[0] = network.graph.input[0].name = "renamed"
    network.graph.node[-1].output[0] = network.graph.output[0].name = "scores"
    onnx.save(contract.put_back(entry, network), tmp_path / "again.onnx")
    np.testing.assert_array_equal(logits(tmp_path / "again.onnx", optimised=False), logits(source.path, optimised=False))


def test_the_entry_scales_the_calibration_images(net: Any, tool: Any, dataset: Any) -> None:
    images = np.array(dataset.images("train"))[:2]
    entry, _ = tool("contract").split(small(net))
    np.testing.assert_allclose(entry(images), (images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5, atol=1e-6)


def test_a_model_without_an_entry_is_refused(net: Any, tool: Any) -> None:
    _, network = tool("contract").split(small(net))
    with pytest.raises(ValueError, match="no entry to cut off: its first node is a Conv"):
        tool("contract").split(network)


def test_a_peer_gets_our_images_and_gives_a_file_that_keeps_the_contract(
    net: Any, tool: Any, as_artefact: Any, dataset: Any, logits: Any, tmp_path: Path
) -> None:
    source = as_artefact(small(net))
    np.save(tmp_path / "calibration.npy", np.array(dataset.images("train"))[:16])
    quantizers, figures = tool("quantizers"), tool("int8_figures")
    ((peer, python),) = [(peer, python) for peer, python in quantizers.peers_of([]) if peer.name == PEER]
    output = tmp_path / "int8.onnx"
    made = quantizers.by_peer(peer, python, source.path, tmp_path / "calibration.npy", output, 100)
    assert made.failure == ""
    assert made.seconds > 0
    rows = range(48)
    found = figures.accuracy(logits(source.path), figures.logits_of(made.path, np.array(dataset.images("test"))), dataset, rows)
    assert found.agreement_percent > 85
    assert 0 < found.nmse < 0.05


def test_a_peer_that_fails_is_quoted(tool: Any, tmp_path: Path) -> None:
    quantizers = tool("quantizers")
    peer = quantizers.Peer("a peer", "ort_static.py")
    made = quantizers.by_peer(peer, sys.executable, tmp_path / "no.onnx", tmp_path / "no.npy", tmp_path / "out.onnx", 100)
    assert made.path is None
    assert made.failure.startswith("exit code 1: FileNotFoundError")
    late = quantizers.by_peer(peer, sys.executable, tmp_path / "no.onnx", tmp_path / "no.npy", tmp_path / "out.onnx", 0.01)
    assert late.failure == "not done after 0 s"


def test_every_mistyped_peer_is_named(tool: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool("quantizers").peers_of(["nncv=python", "nncf=/nowhere/python"])
    first, second = str(stopped.value).splitlines()
    assert first.startswith("--peers nncv=python: expected NAME=PYTHON, with one of ort, nncf")
    assert "/nowhere/python cannot be run" in second


def test_the_table_shows_failure_and_collapse(tool: Any) -> None:
    quantizers, table = tool("quantizers"), tool("quantizer_table")
    figures = {"top1_percent": 11.0, "agreement_percent": 12.0, "kl_nats": 2.0, "nmse": 1.5, "float_layers": ["a", "b"]}
    good, bad = (quantizers.Made(name="x", path=path, failure=said) for path, said in ((Path("x.onnx"), ""), (None, "why")))
    partly = table.Row("partly", [good, bad], [figures], [1.5], [(1.0, 2.0)] * 8, [(3.0, 2.0)] * 8)
    never = table.Row("never", [bad])
    head, line, *rows = [text.strip("| ").split(" | ") for text in table.markdown([partly, never]).splitlines()]
    assert {len(row) for row in (head, line, rows[0])} == {len(head)}
    assert rows[0] == [
        *("partly", "11.00", "12.00 **collapsed**", "2.0000", "1.5000", "0.0", "1.500"),
        *("0.500 [0.500, 0.500]", "1.500 [1.500, 1.500]", "2; failed: why"),
    ]
    assert rows[1][:2] == ["never", "failed: why"]


LOGITS = hnp.arrays(np.float32, (4, 3), elements=st.floats(-20, 20, width=32))


@given(reference=LOGITS, candidate=LOGITS, shift=st.floats(-5, 5, width=32))
def test_the_divergence_is_one(tool: Any, reference: Any, candidate: Any, shift: float) -> None:
    divergence = tool("int8_figures").kl_divergence
    found = divergence(reference, candidate)
    assert found >= -1e-12
    assert divergence(reference, reference) == 0
    # Softmax does not feel what is added to all logits.
    assert divergence(reference, candidate + np.float32(shift)) == pytest.approx(found, rel=1e-3, abs=1e-4)


def test_the_divergence_of_two_coins(tool: Any) -> None:
    p, q = (np.log(np.array([[share, 1 - share]], np.float32)) for share in (0.5, 0.25))
    assert tool("int8_figures").kl_divergence(p, q) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-5)
