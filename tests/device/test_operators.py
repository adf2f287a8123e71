"""ONNX Runtime's profile of a model, from a fresh process."""

from __future__ import annotations

import json

import onnx
import pytest

from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.operators import OperatorsPlan, kernel_events, measure_operators, middle
from edgetune.device.request import read_request


def test_the_nodes_are_those_of_the_optimised_graph_in_its_order(model, tmp_path):
    optimised = tmp_path / "optimised.onnx"
    options = {"providers": ["CPUExecutionProvider"], "execution_mode": "parallel"}
    found = measure_operators(OperatorsPlan(model="a", warmup=1, queries=3), model, options, None, optimised)
    nodes = onnx.load(optimised).graph.node
    assert [node["operator"] for node in found["nodes"]] == [node.op_type for node in nodes]
    assert {"model": found["model"], "queries": found["queries"]} == {"model": "a", "queries": 3}
    assert found["nodes"][-1]["outputs"] == [["float", [1, 3]]]
    assert 0 < sum(node["microseconds"] for node in found["nodes"]) < found["query_us"]


def test_another_provider_is_refused_before_a_process_starts(model, tmp_path):
    with pytest.raises(RunnerError, match="got provider CUDAExecutionProvider, expected CPUExecutionProvider") as caught:
        measure_operators(OperatorsPlan(model="a"), model, {"providers": ["CUDAExecutionProvider"]}, None, tmp_path / "o.onnx")
    assert caught.value.code == ExitCode.USAGE


def test_only_the_times_of_kernels_are_read_from_a_profile(tmp_path):
    facts = {"op_name": "Conv", "output_type_shape": [{"float": [1, 2]}]}
    events = [
        {"cat": "Session", "name": "model_run", "dur": 9, "args": {}},
        {"cat": "Node", "name": "a_fence_before", "dur": 1, "args": {}},
        {"cat": "Node", "name": "a_kernel_time", "dur": 7, "args": facts},
        {"cat": "Session", "name": "x_kernel_time", "dur": 5, "args": facts},
    ]
    profile = tmp_path / "profile.json"
    profile.write_text("[\n" + ",\n".join(map(json.dumps, events)) + "\n]\n")
    expected = {"name": "a", "operator": "Conv", "microseconds": 7, "outputs": [["float", [1, 2]]]}
    assert list(kernel_events(profile)) == [expected]


def test_the_middle_half_is_what_counts():
    assert middle([1000, 2, 3, 0]) == 2.5
    assert middle([4]) == 4


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"model": "a"}, "operators: expected model, warmup, queries"),
        ({"model": "z", "warmup": -1, "queries": 0}, "operators.model: got 'z'"),
    ],
)
def test_a_request_for_operators_is_read_strictly(model, tmp_path, entry, said):
    content = {"schema": 1, "models": [{"name": "a", "path": str(model), "sha256": "0" * 64}], "session": {}}
    file = tmp_path / "request.json"
    file.write_text(json.dumps({**content, "operators": entry}))
    with pytest.raises(RunnerError) as caught:
        read_request(file)
    assert said in str(caught.value)
    assert ("operators.queries" in str(caught.value)) == (len(entry) == 3)
