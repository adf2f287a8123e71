from __future__ import annotations

import json
import os
import signal
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from edgetune.errors import ArtefactError, DataError, TargetError, UsageError
from edgetune.progress import Silent
from edgetune.recipe import VerifyRecipe
from edgetune.verify.stage import check_target, measure, measured_labels, session_options, stand_in
from edgetune.verify.targets.interface import EvalRequest, LatencyRequest, ModelRequest, Request
from edgetune.verify.targets.local import LocalTarget
from edgetune.verify.targets.outcome import ending


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((done, total))


def request(world, **changes) -> Request:
    given = {
        "models": tuple(ModelRequest(name=n, path=m.path, sha256=m.sha256) for n, m in world.models.items()),
        "session": session_options(world.profile),
        "eval": EvalRequest(images=world.dataset.folder / "test" / "images.npy"),
        "latency": LatencyRequest(warmup=1, rounds=6, queries_per_round=4),
    }
    return Request(**{**given, **changes})


def program(folder: Path, body: str) -> str:
    """Return an executable that stands in the interpreter's place and ends as `body` says, whatever it is asked."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_runner_measures_both_models_here(world, tmp_path):
    heard = Heard()
    answer = LocalTarget().measure(request(world), tmp_path / "out", heard)
    assert set(answer["models"]) == {"fp32", "int8"}
    for name in ("fp32", "int8"):
        logits = np.load(tmp_path / "out" / f"logits-{name}.npy")
        assert logits.shape == (40, 4)
        assert (logits.argmax(axis=1) == world.dataset.labels("test")).mean() > 0.9
        assert len(answer["models"][name]["latency"]["round_medians_ms"]) == 6
        assert answer["models"][name]["footprint"]["cold_start_ms"] > 0
    assert heard.steps[-1] == (5, 5)


def test_a_changed_model_is_not_measured(world, tmp_path):
    models = (ModelRequest(name="fp32", path=world.fp32.path, sha256="f" * 64),)
    with pytest.raises(ArtefactError, match=r"f{64}"):
        LocalTarget().measure(request(world, models=models), tmp_path, Silent())


def test_a_provider_that_is_not_here_is_a_target_error(world, tmp_path):
    session = {**session_options(world.profile), "providers": ["NoSuchExecutionProvider"]}
    with pytest.raises(TargetError, match="NoSuchExecutionProvider"):
        LocalTarget().measure(request(world, session=session), tmp_path, Silent())


def test_options_that_cannot_be_honoured_are_all_named(world, tmp_path):
    session = {**session_options(world.profile), "graph_optimization": "heroic", "turbo": True}
    with pytest.raises(UsageError) as caught:
        LocalTarget().measure(request(world, session=session), tmp_path, Silent())
    assert "heroic" in str(caught.value)
    assert "turbo" in str(caught.value)


def test_images_of_another_size_are_a_data_error(world, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 9, 9, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="9, 9"):
        LocalTarget().measure(request(world, eval=EvalRequest(images=tmp_path / "images.npy")), tmp_path / "out", Silent())


@pytest.mark.parametrize(("name", "word"), [("ILL", "instruction"), ("KILL", "memory"), ("SEGV", "ONNX Runtime")])
def test_a_death_by_signal_is_explained(world, tmp_path, name, word):
    target = LocalTarget(program(tmp_path, f"echo 'last words' >&2; kill -{name} $$"))
    with pytest.raises(TargetError, match=word) as caught:
        target.measure(request(world), tmp_path / "out", Silent())
    assert f"SIG{name}" in caught.value.message
    assert "last words" in caught.value.remedy


def test_a_runner_that_hangs_is_stopped_with_its_children(world, tmp_path):
    target = LocalTarget(program(tmp_path, f"sleep 60 & echo $! > {tmp_path}/pid; wait"), deadline_s=0.5)
    with pytest.raises(TargetError, match=r"did not end within 0\.5 s"):
        target.measure(request(world), tmp_path / "out", Silent())
    child = int((tmp_path / "pid").read_text())
    assert not runs(child)


def runs(pid: int) -> bool:
    """Return whether a process still runs; an orphan that nobody has waited for yet counts as ended."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def test_an_interpreter_that_is_not_there_is_a_target_error(tmp_path):
    with pytest.raises(TargetError, match=r"cannot be run on .*: No such file"):
        LocalTarget(str(tmp_path / "python9")).environment()


def test_an_interpreter_without_onnxruntime_is_told_what_to_install(tmp_path):
    with pytest.raises(TargetError, match="cannot import onnxruntime") as caught:
        LocalTarget(program(tmp_path, """echo '{"onnxruntime": null}'""")).environment()
    assert "pip install" in caught.value.remedy


@pytest.mark.parametrize("said", ["not JSON", "[1, 2]"])
def test_a_garbled_environment_is_an_artefact_error(tmp_path, said):
    with pytest.raises(ArtefactError, match="environment"):
        LocalTarget(program(tmp_path, f"echo '{said}'")).environment()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (None, "left no measurement.json"),
        ("{", "not JSON"),
        ('{"schema": 2}', "schema 2"),
        ("[]", "schema 'list'"),
        ('{"schema": 1, "models": {}}', "not an answer"),
    ],
)
def test_a_runner_that_answers_something_else_is_found_out(world, tmp_path, answer, word):
    out = tmp_path / "out"
    body = "exit 0" if answer is None else f"printf '%s' '{answer}' > {out}/measurement.json"
    out.mkdir()
    (out / "measurement.json").write_text('{"schema": 1, "left": "by an earlier run"}')
    with pytest.raises(ArtefactError, match=word):
        LocalTarget(program(tmp_path, body)).measure(request(world), out, Silent())


def test_every_fault_of_an_answer_is_named(world, tmp_path):
    out = tmp_path / "out"
    good = LocalTarget().measure(request(world), out, Silent())
    good["models"]["fp32"]["sha256"] = "0" * 64
    del good["models"]["int8"]["latency"]
    (tmp_path / "answer.json").write_text(json.dumps(good))
    with pytest.raises(ArtefactError) as caught:
        LocalTarget(program(tmp_path, f"cp {tmp_path}/answer.json {out}/measurement.json")).measure(
            request(world), out, Silent()
        )
    wheres = [fault.where for fault in caught.value.faults]
    assert wheres == ["models.fp32.sha256", "models.int8.latency"]


def test_an_exit_code_of_nobodys_is_a_target_error_with_its_last_line():
    error = ending(1, "int8: 40 images\nTraceback (most recent call last):\n  File x\nRuntimeError: boom\n", "a board")
    assert isinstance(error, TargetError)
    assert error.message == "the runner on a board says: RuntimeError: boom"
    assert ending(0, "", "a board") is None
    assert "ended with exit code 7, saying nothing" in str(ending(7, "", "a board"))
    assert signal.SIGRTMIN.name in str(ending(-signal.SIGRTMIN, "", "a board"))


def test_the_stage_measures_the_test_split_on_the_target(world, tmp_path):
    measurement = measure(world.models, world.dataset, world.profile, VerifyRecipe(), folder=tmp_path, progress=Silent())
    assert measurement.is_target
    assert measurement.stand_in_reason == ""
    assert measurement.logits("fp32").shape == (40, 4)
    assert os.uname().nodename not in measurement.where


def test_fewer_images_are_spread_over_the_classes(world, tmp_path):
    recipe = VerifyRecipe(test_images=12, device="local")
    measurement = measure(world.models, world.dataset, world.profile, recipe, folder=tmp_path, progress=Silent())
    labels = measured_labels(world.dataset, recipe)
    assert np.bincount(labels).tolist() == [3, 3, 3, 3]
    assert (measurement.logits("fp32").argmax(axis=1) == labels).mean() > 0.9


def foreign(world, **runtime):
    processor = world.profile.processor.model_copy(update={"features": ("quantum",)})
    changed = world.profile.runtime.model_copy(update=runtime)
    return world.profile.model_copy(update={"processor": processor, "runtime": changed})


def test_another_machine_stands_in_and_says_so(world, tmp_path):
    heard = Heard()
    profile = foreign(world, providers=("TensorrtExecutionProvider", "CPUExecutionProvider"), intra_op_threads=200)
    measurement = measure({"fp32": world.fp32}, world.dataset, profile, VerifyRecipe(), folder=tmp_path, progress=heard)
    assert not measurement.is_target
    for word in ("quantum", "TensorrtExecutionProvider", "intra_op_threads"):
        assert word in measurement.stand_in_reason
    assert any("stands in" in line for line in heard.lines)
    assert measurement.raw["models"]["fp32"]["providers"] == ["CPUExecutionProvider"]


def test_options_are_the_profiles_own_on_the_target(world):
    environment = LocalTarget().environment()
    assert stand_in(world.profile, environment) == (session_options(world.profile), "")


def test_a_board_of_the_right_kind_with_fewer_threads_measures_and_its_times_are_not_the_targets(world):
    facts = LocalTarget().environment()
    threads = facts["logical_cores"] + 1
    runtime = world.profile.runtime.model_copy(update={"intra_op_threads": threads})
    options, reason = stand_in(world.profile.model_copy(update={"runtime": runtime}), facts)
    assert options["intra_op_threads"] == facts["cores"]
    assert reason == f"measured with intra_op_threads = {facts['cores']} instead of {threads}, as it has no more cores"


def test_a_machine_that_must_be_the_target_and_is_not_is_refused_before_training(world, tmp_path):
    profile = foreign(world)
    with pytest.raises(TargetError, match="quantum"):
        check_target(profile, VerifyRecipe(device="local"))
    with pytest.raises(TargetError, match="quantum"):
        measure(world.models, world.dataset, profile, VerifyRecipe(device="local"), folder=tmp_path, progress=Silent())
    check_target(profile, VerifyRecipe(device="auto"))
    check_target(world.profile, VerifyRecipe(device="local"))
