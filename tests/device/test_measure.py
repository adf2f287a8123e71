"""Requests in, measurements out: in this process, on the small network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetune.device import footprint
from edgetune.device.digest import sha256_file
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.footprint import death, measure_footprint
from edgetune.device.measure import measure
from edgetune.device.request import read_request
from edgetune.device.session import open_session

Build = Callable[..., onnx.ModelProto]


def silent(_: str) -> None:
    """Say nothing."""


def asked(folder: Path, model: Path, **changes: Any) -> Path:
    """Write a request and return its path."""
    content = {
        "schema": 1,
        "models": [{"name": "fp32", "path": str(model), "sha256": sha256_file(model)}],
        "session": {},
        "eval": None,
        "latency": None,
        "footprint": False,
        "golden": None,
        **changes,
    }
    path = folder / "request.json"
    path.write_text(json.dumps(content))
    return path


def evaluated(folder: Path, model: Path, images: np.ndarray, limit: int | None = None) -> dict[str, Any]:
    np.save(folder / "images.npy", images)
    request = asked(folder, model, eval={"images": str(folder / "images.npy"), "limit": limit})
    return measure(read_request(request), folder, silent)["models"]["fp32"]["eval"]


def test_logits_are_those_of_batch_one(tmp_path: Path, model: Path, pictures: np.ndarray) -> None:
    facts = evaluated(tmp_path, model, pictures, limit=7)
    assert (facts["images"], facts["finite"], facts["constant"]) == (7, True, False)
    logits = np.load(tmp_path / "logits-fp32.npy", allow_pickle=False)
    session = open_session(model, {})
    expected = [session.run(["logits"], {"image": image[None]})[0][0] for image in pictures[:7]]
    np.testing.assert_array_equal(logits, np.stack(expected))
    assert logits.dtype == np.float32
    stored = json.loads((tmp_path / "measurement.json").read_text())
    assert stored["models"]["fp32"]["eval"] == facts
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "images.npy",
        "logits-fp32.npy",
        "measurement.json",
        "request.json",
    ]


def test_logits_that_are_not_numbers_are_told(tmp_path: Path, classifier: Build, pictures: np.ndarray) -> None:
    onnx.save(classifier(head=np.full((3, 4), np.nan, np.float32)), tmp_path / "model.onnx")
    facts = evaluated(tmp_path, tmp_path / "model.onnx", pictures)
    assert (facts["finite"], facts["constant"]) == (False, False)


def test_logits_that_never_change_are_told(tmp_path: Path, classifier: Build, pictures: np.ndarray) -> None:
    onnx.save(classifier(head=np.zeros((3, 4), np.float32)), tmp_path / "model.onnx")
    facts = evaluated(tmp_path, tmp_path / "model.onnx", pictures)
    assert (facts["finite"], facts["constant"]) == (True, True)
    assert evaluated(tmp_path, tmp_path / "model.onnx", pictures, limit=1)["constant"] is False


def test_another_digest_is_refused_before_the_model_is_opened(tmp_path: Path, model: Path) -> None:
    request = asked(
        tmp_path, model, models=[{"name": "fp32", "path": str(model), "sha256": "0" * 64}], session={"providers": ["No"]}
    )
    with pytest.raises(RunnerError, match="expected 0000") as caught:
        measure(read_request(request), tmp_path, silent)
    assert caught.value.code is ExitCode.ARTEFACT


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 9, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_images_that_do_not_fit_are_refused(tmp_path: Path, model: Path, images: np.ndarray) -> None:
    with pytest.raises(RunnerError, match="expected uint8") as caught:
        evaluated(tmp_path, model, images)
    assert caught.value.code is ExitCode.DATA


def test_pickles_are_never_loaded(tmp_path: Path, model: Path) -> None:
    np.save(tmp_path / "images.npy", np.array([{}], dtype=object), allow_pickle=True)
    request = asked(tmp_path, model, eval={"images": str(tmp_path / "images.npy"), "limit": None})
    with pytest.raises(RunnerError) as caught:
        measure(read_request(request), tmp_path, silent)
    assert caught.value.code is ExitCode.DATA


def test_all_faults_of_a_request_come_at_once(tmp_path: Path, model: Path) -> None:
    request = asked(
        tmp_path,
        model,
        models=[{"name": "../x", "path": "y", "sha256": "z"}, {}],
        session={"threads": 2},
        eval={"images": 3},
        latency={"warmup": 1, "rounds": 0, "queries_per_round": 1},
        footprint="yes",
        golden=1,
        preprocessing={},
        colour="red",
    )
    with pytest.raises(RunnerError) as caught:
        read_request(request)
    assert caught.value.code is ExitCode.USAGE
    for word in ("name", "sha256", "models.1", "threads", "eval", "rounds", "footprint", "golden:", "preprocessing", "colour"):
        assert any(word in fault for fault in caught.value.faults), word


def test_latency_without_images_is_refused(tmp_path: Path, model: Path) -> None:
    request = asked(tmp_path, model, latency={"warmup": 0, "rounds": 1, "queries_per_round": 1})
    with pytest.raises(RunnerError, match="latency: needs images"):
        read_request(request)


def test_a_request_of_a_newer_schema_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(RunnerError, match="got schema 2, expected 1"):
        read_request(asked(tmp_path, model, schema=2))


def test_the_footprint_is_the_models_alone(tmp_path: Path, classifier: Build, model: Path) -> None:
    small = measure_footprint(model, {})
    weight = onnx.numpy_helper.from_array(np.random.default_rng(0).normal(size=(5_000, 2_000)).astype(np.float32), "large")
    heavy = classifier()
    heavy.graph.initializer.append(weight)
    heavy.graph.node.append(onnx.helper.make_node("ReduceSum", ["large"], ["one"], keepdims=0))
    heavy.graph.node.append(onnx.helper.make_node("Add", ["logits", "one"], ["moved"]))
    for node in heavy.graph.node:
        node.output[:] = ["early" if name == "logits" else "logits" if name == "moved" else name for name in node.output]
        node.input[:] = ["early" if name == "logits" else name for name in node.input]
    onnx.save(heavy, tmp_path / "heavy.onnx")
    large = measure_footprint(tmp_path / "heavy.onnx", {"graph_optimization": "disabled"})
    assert 0 < small["peak_memory_bytes"] < 20e6
    assert 35e6 < large["peak_memory_bytes"] - small["peak_memory_bytes"] < 150e6
    assert small["cold_start_ms"] > 0
    assert small["first_inference_ms"] > 0


def test_what_a_child_process_ran_into_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"junk")
    with pytest.raises(RunnerError, match="cannot be opened by ONNX Runtime") as caught:
        measure_footprint(tmp_path / "model.onnx", {})
    assert caught.value.code is ExitCode.ARTEFACT


def test_a_child_that_dies_by_a_signal_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suicide = tmp_path / "suicide.py"
    suicide.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.setattr(footprint, "own_command", lambda: [sys.executable, str(suicide)])
    with pytest.raises(RunnerError, match=r"died by SIGILL \(illegal instruction: ") as caught:
        measure_footprint(tmp_path / "model.onnx", {})
    assert caught.value.code is ExitCode.TARGET


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(footprint, "own_command", lambda: [sys.executable, str(sleeper)])
    with pytest.raises(RunnerError, match=r"did not end within 0\.2 s"):
        measure_footprint(tmp_path / "model.onnx", {}, deadline_s=0.2)


def test_signals_without_a_meaning_still_have_a_name() -> None:
    assert death(2) == "SIGINT"
    assert death(200) == "signal 200"
