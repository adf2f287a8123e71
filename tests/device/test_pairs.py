"""Two models in pairs of fresh processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgetune.device import pairs
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.pairs import PairsPlan, measure_pairs
from edgetune.device.request import read_request

SESSION = {"providers": ["CPUExecutionProvider"]}


def plan(**changes) -> PairsPlan:
    given = {"models": ("a", "b"), "sessions": (SESSION, SESSION), "pairs": 2, "warmup": 1, "blocks": 3, "queries_per_block": 2}
    return PairsPlan(**{**given, **changes})


def test_each_pair_is_two_new_processes_and_who_is_first_alternates(model, classifier, tmp_path, pictures, monkeypatch):
    larger, images = tmp_path / "larger.onnx", tmp_path / "images.npy"
    onnx.save(classifier(side=16), larger)
    np.save(images, pictures)
    asked: list[tuple[str, int, str]] = []
    processes = set()
    ask = pairs._Side.ask

    def heard(side, order):
        processes.add(side._process.pid)
        asked.append((side._path.name, side._process.pid, order["do"]))
        return ask(side, order)

    monkeypatch.setattr(pairs._Side, "ask", heard)
    said: list[str] = []
    # The images fit the first model alone: the second is queried with noise.
    found = measure_pairs(plan(first=3), {"a": model, "b": larger}, images, said.append)
    assert said == ["pair 4 of 5: a, b", "pair 5 of 5: a, b"]
    assert found["models"] == ["a", "b"]
    assert len(processes) == 4
    opened = [name for name, _, order in asked if order == "open"]
    assert opened == ["larger.onnx", "model.onnx", "model.onnx", "larger.onnx"]
    for pair in found["pairs"]:
        for side in pair["sides"]:
            assert side["queries"] == 6
            assert len(side["block_medians_ms"]) == 3
            assert side["cold_start_ms"] > 0
    blocks = [name for name, _, order in asked[:12] if order == "run"][2:]
    assert blocks == ["larger.onnx", "model.onnx", "model.onnx", "larger.onnx", "larger.onnx", "model.onnx"]


def test_what_ends_a_process_is_said_and_no_process_is_left(model, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(RunnerError, match=r"broken\.onnx cannot be opened by ONNX Runtime") as caught:
        measure_pairs(plan(), {"a": model, "b": broken}, None, lambda line: None)
    assert caught.value.code == ExitCode.ARTEFACT


def test_a_request_for_pairs_is_read_strictly(model, tmp_path):
    content = {"schema": 1, "models": [{"name": "a", "path": str(model), "sha256": "0" * 64}], "session": SESSION}
    numbers = {"pairs": 0, "first": -1, "warmup": 1, "blocks": 1, "queries_per_block": True}
    file = Path(tmp_path / "request.json")
    file.write_text(json.dumps({**content, "pairs": {"models": ["a", "z"], "sessions": [SESSION, {"turbo": 1}], **numbers}}))
    with pytest.raises(RunnerError) as caught:
        read_request(file)
    said = str(caught.value)
    for part in ("pairs.models", "turbo", "pairs.pairs", "pairs.first", "pairs.queries_per_block"):
        assert part in said
    file.write_text(json.dumps({**content, "pairs": {"models": ["a", "a"]}}))
    with pytest.raises(RunnerError, match="pairs: expected models, sessions"):
        read_request(file)
