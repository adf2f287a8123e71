"""Sessions are opened as asked, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.session import image_shape, open_session

Build = Callable[..., onnx.ModelProto]


def refused(path: Path, options: dict[str, Any]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        open_session(path, options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_option_is_honoured(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = open_session(
        model,
        {
            "providers": ["CPUExecutionProvider"],
            "graph_optimization": "basic",
            "intra_op_threads": 2,
            "inter_op_threads": 3,
            "execution_mode": "parallel",
            "config": {"session.intra_op.allow_spinning": "0"},
        },
    )
    options = session.get_session_options()
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 3)
    assert options.execution_mode.name == "ORT_PARALLEL"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert image_shape(session) == (8, 8, 3)
    assert session.run(["logits"], {"image": np.zeros((3, 8, 8, 3), np.uint8)})[0].shape == (3, 3)
    assert capfd.readouterr() == ("", "")


def test_all_faults_of_the_options_come_at_once(model: Path) -> None:
    fault = refused(
        model,
        {"providers": [], "graph_optimisation": "all", "intra_op_threads": True, "execution_mode": "both", "config": {"a": 1}},
    )
    assert fault.code is ExitCode.USAGE
    assert len(fault.faults) == 5
    assert "session.graph_optimisation: is not known" in str(fault)


def test_a_provider_that_is_not_there_is_an_error(model: Path) -> None:
    fault = refused(model, {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]})
    assert fault.code is ExitCode.TARGET
    assert "asked for CUDAExecutionProvider, got nothing; available here: " in str(fault)
    assert "CPUExecutionProvider" in str(fault)


def test_a_later_provider_may_be_missing(model: Path) -> None:
    session = open_session(model, {"providers": ["CPUExecutionProvider", "CUDAExecutionProvider"]})
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: setattr(model, "ir_version", 99), ": Unsupported model IR version: 99, max supported IR version: "),
        (
            lambda model: setattr(model.opset_import[0], "version", 99),
            "Current official support for domain ai.onnx is till opset ",
        ),
        (lambda model: setattr(model.graph.node[2], "op_type", "Convolve"), "No Op registered for Convolve"),
    ],
)
def test_a_model_that_cannot_be_opened_says_why(
    classifier: Build, tmp_path: Path, change: Callable[[Any], object], words: str
) -> None:
    proto = classifier()
    change(proto)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    fault = refused(path, {})
    assert fault.code is ExitCode.ARTEFACT
    assert words in str(fault)
    assert "::" not in str(fault)


@pytest.mark.parametrize("content", [None, b"", b"junk", b"\x08\x09" * 50])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    assert refused(path, {}).code is ExitCode.ARTEFACT


def test_a_model_of_another_contract_is_refused_with_every_difference(classifier: Build, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(classifier(image="input", logits="output"), path)
    fault = refused(path, {})
    assert fault.code is ExitCode.ARTEFACT
    assert fault.faults == ("inputs: got input, expected image alone", "outputs: got output, expected logits alone")


def test_an_image_of_another_type_or_shape_is_refused(tmp_path: Path) -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])],
        "same",
        [helper.make_tensor_value_info("image", kind, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", kind, ["N", 3, 8, 8])],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    fault = refused(path, {})
    assert [text.split(":")[0] for text in fault.faults] == ["image", "logits"]
