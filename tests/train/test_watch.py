"""What TensorBoard and MLflow show of a training, also of one that was interrupted, and what happens when they fail."""

from __future__ import annotations

import json
import math
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from edgetune.errors import UsageError
from edgetune.recipe import WatchRecipe
from edgetune.train.watch import Nobody, Watch, open_watch

SETTINGS = {"backbone": "tiny", "train": {"lr": 0.001, "epochs": 3}}
STEPS_PER_EPOCH = 25


class Said(Protocol):
    lines: list[str]

    def line(self, text: str) -> None: ...

    def advance(self, label: str, done: int, total: int, note: str = "") -> None: ...


def start(recipe: WatchRecipe, folder: Path | None, lines: Said, *, from_step: int = 0) -> Watch:
    return open_watch(recipe, folder, "student", from_step=from_step, settings=SETTINGS, progress=lines)


def go_on(watch: Watch, first: int, last: int, *, loss: float = 1.0) -> None:
    """Do the steps from `first` to `last`, with the ends of the epochs between them."""
    for step in range(first, last + 1):
        watch.step(step, {"train/loss": loss / step, "train/lr": 1e-3, "train/images_per_s": 100.0})
        if step % STEPS_PER_EPOCH == 0:
            watch.epoch(step // STEPS_PER_EPOCH, {"val/loss": loss / step, "val/top-1 %": 50.0})


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "student")).Reload()


def steps(folder: Path, tag: str) -> list[int]:
    return [point.step for point in events(folder).Scalars(tag)]


def test_event_files_hold_one_step_of_ten_and_every_epoch(tmp_path: Path, lines: Said) -> None:
    watch = start(WatchRecipe(), tmp_path, lines)
    watch.epoch(0, {"val/loss": 2.0})
    go_on(watch, 1, 50)
    watch.close()
    assert steps(tmp_path, "train/loss") == [1, 10, 20, 30, 40, 50]
    found = events(tmp_path)
    assert [(p.step, p.value) for p in found.Scalars("epoch")] == [(0, 0), (25, 1), (50, 2)]
    assert [round(p.value, 4) for p in found.Scalars("val/loss")] == [2.0, 0.04, 0.02]
    assert set(found.Tags()["scalars"]) == {"train/loss", "train/lr", "train/images_per_s", "val/loss", "val/top-1 %", "epoch"}
    assert b'"epochs": 3' in found.Tensors("settings")[0].tensor_proto.string_val[0]
    assert lines.lines == []


def test_event_files_can_be_read_while_the_training_runs(tmp_path: Path, lines: Said) -> None:
    watch = start(WatchRecipe(), tmp_path, lines)
    go_on(watch, 1, 12)
    assert steps(tmp_path, "train/loss") == [1, 10]
    watch.close()


def test_a_resumed_training_hides_what_came_after_its_state(tmp_path: Path, lines: Said) -> None:
    killed = start(WatchRecipe(), tmp_path, lines)
    go_on(killed, 1, 60, loss=100.0)  # Never closed: it was killed, and its last state is of step 30.
    resumed = start(WatchRecipe(), tmp_path, lines, from_step=30)
    go_on(resumed, 31, 75, loss=1.0)
    resumed.close()
    assert steps(tmp_path, "train/loss") == [1, 10, 20, 30, 40, 50, 60, 70]
    points = {point.step: point.value for point in events(tmp_path).Scalars("val/loss")}
    assert points == {25: pytest.approx(4.0), 50: pytest.approx(0.02), 75: pytest.approx(1 / 75)}


def test_a_state_at_the_end_of_an_epoch_gives_each_epoch_once(tmp_path: Path, lines: Said) -> None:
    killed = start(WatchRecipe(), tmp_path, lines)
    go_on(killed, 1, 49)
    resumed = start(WatchRecipe(), tmp_path, lines, from_step=25)
    go_on(resumed, 26, 50)
    resumed.close()
    assert steps(tmp_path, "epoch") == [25, 50]


def test_a_new_training_hides_the_one_before(tmp_path: Path, lines: Said) -> None:
    for last in (50, 20):
        watch = start(WatchRecipe(), tmp_path, lines)
        watch.epoch(0, {"val/loss": 2.0})
        go_on(watch, 1, last)
        watch.close()
    assert steps(tmp_path, "train/loss") == [1, 10, 20]
    assert steps(tmp_path, "val/loss") == [0]


def test_a_full_disk_is_said_once_and_ends_nothing(tmp_path: Path, lines: Said) -> None:
    watch = start(WatchRecipe(), tmp_path, lines)
    go_on(watch, 1, 20)
    size = next((tmp_path / "student").iterdir()).stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (size + 10, limits[1])
    )  # Python ignores the signal: writing fails as on a full disk.
    try:
        go_on(watch, 21, 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    go_on(watch, 61, 75)
    watch.close()
    assert len(lines.lines) == 1
    assert lines.lines[0].startswith("warning: TensorBoard hears no more of this training: ")
    assert steps(tmp_path, "train/loss") == [1, 10, 20]
    resumed = start(WatchRecipe(), tmp_path, lines, from_step=10)
    go_on(resumed, 11, 40)
    assert steps(tmp_path, "train/loss") == [1, 10, 20, 30, 40]


def test_a_folder_that_cannot_be_written_is_said_and_ends_nothing(tmp_path: Path, lines: Said) -> None:
    (tmp_path / "student").write_text("a file in the way")
    watch = start(WatchRecipe(), tmp_path, lines)
    go_on(watch, 1, 30)
    watch.close()
    assert len(lines.lines) == 1
    assert "no event files for TensorBoard" in lines.lines[0]


@pytest.mark.parametrize("with_folder", [True, False])
def test_nobody_is_told_where_nobody_is_wanted(tmp_path: Path, lines: Said, with_folder: bool) -> None:
    watch = start(WatchRecipe(tensorboard=not with_folder), tmp_path if with_folder else None, lines)
    go_on(watch, 1, 30)
    watch.close(complete=False)
    assert isinstance(watch, Nobody)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_imported_that_nobody_asked_for() -> None:
    script = (
        "import sys; import edgetune.train.watch\n"
        "print([name for name in ('tensorboard', 'mlflow', 'torch', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_mlflow_that_is_not_installed_is_said_before_training(
    tmp_path: Path, lines: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="MLflow is not installed") as caught:
        start(WatchRecipe(mlflow="http://127.0.0.1:5000"), tmp_path, lines)
    assert caught.value.remedy == "pip install 'edgetune[mlflow]'"
    assert list(tmp_path.iterdir()) == []


class TestMLflow:
    """With MLflow's own client and its files in a folder."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("mlflow")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "run"

    def runs(self, store: Path) -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=store.as_uri())
        return client.search_runs([client.get_experiment_by_name("edgetune").experiment_id], order_by=["start_time"])

    def history(self, store: Path, run: Any, name: str) -> list[tuple[int, float]]:
        from mlflow import MlflowClient

        points = MlflowClient(tracking_uri=store.as_uri()).get_metric_history(run.info.run_id, name)
        return [(point.step, point.value) for point in points]

    def test_a_training_becomes_a_run_with_parameters_and_metrics(self, folder: Path, store: Path, lines: Said) -> None:
        watch = start(WatchRecipe(mlflow=str(store), tensorboard=False), folder, lines)
        watch.epoch(0, {"val/loss": 2.0, "val/R²": math.nan})
        go_on(watch, 1, 25)
        watch.close()
        (run,) = self.runs(store)
        assert run.info.run_name == "student"
        assert run.info.status == "FINISHED"
        assert run.data.params == {"backbone": "tiny", "train.lr": "0.001", "train.epochs": "3"}
        assert [step for step, _ in self.history(store, run, "train/loss")] == [1, 10, 20]
        assert self.history(store, run, "val/loss") == [(0, 2.0), (25, 0.04)]
        assert self.history(store, run, "val/top-1 percent") == [(25, 50.0)]
        assert math.isnan(self.history(store, run, "val/R2")[0][1])

    def test_a_resumed_training_goes_on_in_its_run(self, folder: Path, store: Path, lines: Said) -> None:
        recipe = WatchRecipe(mlflow=str(store), tensorboard=False)
        interrupted = start(recipe, folder, lines)
        go_on(interrupted, 1, 30)
        interrupted.close(complete=False)
        assert [run.info.status for run in self.runs(store)] == ["KILLED"]
        resumed = start(recipe, folder, lines, from_step=30)
        assert [run.info.status for run in self.runs(store)] == ["RUNNING"]
        go_on(resumed, 31, 50)
        resumed.close()
        (run,) = self.runs(store)
        assert run.info.status == "FINISHED"
        assert [step for step, _ in self.history(store, run, "train/loss")] == [1, 10, 20, 30, 40, 50]

    def test_what_a_kill_leaves_is_all_up_to_the_last_epoch(self, folder: Path, store: Path, lines: Said) -> None:
        go_on(start(WatchRecipe(mlflow=str(store), tensorboard=False), folder, lines), 1, 30)
        assert [step for step, _ in self.history(store, self.runs(store)[0], "train/loss")] == [1, 10, 20]

    def test_a_new_training_is_a_new_run(self, folder: Path, store: Path, lines: Said) -> None:
        for _ in range(2):
            start(WatchRecipe(mlflow=str(store)), folder, lines).close()
        assert len(self.runs(store)) == 2

    @pytest.mark.parametrize("kept", ['{"run_id": "0123456789abcdef0123456789abcdef"}', "{", "[]", None])
    def test_a_run_that_is_gone_is_made_anew(self, folder: Path, store: Path, lines: Said, kept: str | None) -> None:
        if kept is not None:
            (folder / "student").mkdir(parents=True)
            (folder / "student" / "mlflow.json").write_text(kept)
        start(WatchRecipe(mlflow=str(store)), folder, lines, from_step=30).close()
        (run,) = self.runs(store)
        assert json.loads((folder / "student" / "mlflow.json").read_text()) == {"run_id": run.info.run_id}

    def test_more_settings_than_one_request_takes(self, folder: Path, store: Path, lines: Said) -> None:
        settings = {"classes": "x" * 10_000, "many": {f"key{i}": i for i in range(150)}}
        recipe = WatchRecipe(mlflow=str(store))
        open_watch(recipe, folder, "student", from_step=0, settings=settings, progress=lines).close()
        parameters = self.runs(store)[0].data.params
        assert len(parameters) == 151
        assert parameters["many.key149"] == "149"
        assert parameters["classes"] == "x" * 500

    def test_a_store_that_vanishes_is_said_once_and_ends_nothing(self, folder: Path, store: Path, lines: Said) -> None:
        watch = start(WatchRecipe(mlflow=str(store)), folder, lines)
        go_on(watch, 1, 30)
        shutil.rmtree(store)
        go_on(watch, 31, 100)
        watch.close()
        assert len(lines.lines) == 1
        assert lines.lines[0].startswith("warning: MLflow hears no more of this training: ")
        assert steps(folder, "epoch") == [25, 50, 75, 100]

    def test_a_server_that_does_not_answer_is_an_error_before_training(self, folder: Path, lines: Said) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # Taken, but nobody listens.
            address = f"127.0.0.1:{closed.getsockname()[1]}"
            with pytest.raises(UsageError, match=f"at http://{address}: ") as caught:
                start(WatchRecipe(mlflow=f"http://me:secret@{address}"), folder, lines)
        assert "secret" not in str(caught.value)
        assert "watch.mlflow" in caught.value.remedy

    def test_an_address_that_mlflow_does_not_know(self, folder: Path, lines: Said) -> None:
        with pytest.raises(UsageError, match="gopher://somewhere"):
            start(WatchRecipe(mlflow="gopher://somewhere"), folder, lines)
