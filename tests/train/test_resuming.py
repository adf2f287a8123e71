"""A run that is stopped, killed or damaged on the way ends with the bytes of one that nothing disturbed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgetune.errors import Interrupted, TrainingDiverged
from edgetune.recipe import DistillRecipe
from edgetune.train.finetune import FineTuning
from edgetune.train.state import StateStore
from edgetune.train.step import Batch

STEPS = 9  # per epoch: 72 images in batches of 8


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(dataset, model, run, tmp_path_factory):
    """The files of a run of two epochs that nothing disturbed."""
    from edgetune.recipe import Recipe

    settings = {"epochs": 2, "batch_size": 8, "threads": 1, "device": "cpu", "lr": 5e-3, "warmup_fraction": 0.1}
    folder = tmp_path_factory.mktemp("whole")
    run(dataset, model, Recipe().train.model_copy(update=settings), folder)
    return files(folder)


def stopping_after(steps: int, lines):
    return lambda: lines.steps >= steps


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not(dataset, model, recipe, run, tmp_path, lines, whole):
    torch.rand(3)  # What the process drew before has no influence,
    run(dataset, model, recipe(), tmp_path / "again", lines)
    assert files(tmp_path / "again") == whole
    run(dataset, model, recipe(), tmp_path / "other", lines, seed=2**31 - 1)  # and any seed of the recipe will do.
    assert files(tmp_path / "other")["model.safetensors"] != whole["model.safetensors"]


@pytest.mark.parametrize("steps", [1, 5, STEPS, STEPS + 1, 2 * STEPS])
def test_a_run_stopped_after_any_step_ends_as_if_nothing_had_been(dataset, model, recipe, run, tmp_path, lines, whole, steps):
    with pytest.raises(Interrupted, match="interrupted in epoch"):
        run(dataset, model, recipe(), tmp_path, lines, stop=stopping_after(steps, lines))
    assert lines.steps == steps
    lines.steps = 0
    run(dataset, model, recipe(), tmp_path, lines)
    assert lines.steps == 2 * STEPS - steps
    assert "resumed after epoch" in lines.text
    assert files(tmp_path) == whole


def test_a_run_stopped_at_every_step_ends_as_if_nothing_had_been(dataset, model, recipe, run, tmp_path, lines, whole):
    for _ in range(2 * STEPS):
        lines.steps = 0
        with pytest.raises(Interrupted):
            run(dataset, model, recipe(), tmp_path, lines, stop=stopping_after(1, lines))
    run(dataset, model, recipe(), tmp_path, lines)
    assert files(tmp_path) == whole


CHILD = """
import json, os, signal, sys
from pathlib import Path
from edgetune.artefacts import Dataset
from edgetune.progress import Silent
from edgetune.recipe import ModelRecipe, TrainRecipe
from edgetune.train import finetune
from edgetune.train.stage import TrainJob, train

finetune.SAVE_EVERY_S = 0.0
facts = json.loads(Path(sys.argv[1]).read_text())

class Killed(Silent):
    steps = 0
    def advance(self, label, done, total, note=""):
        self.steps += label == "fine-tuning"
        if self.steps == facts["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

job = TrainJob(
    dataset=Dataset.model_validate(facts["dataset"]).at(Path(facts["images"])),
    model=ModelRecipe.model_validate_json(json.dumps(facts["model"])),
    recipe=TrainRecipe.model_validate_json(json.dumps(facts["recipe"])),
    seed=0, key="k", folder=Path(facts["folder"]),
)
train(job, Killed())
"""


def test_a_process_killed_in_mid_epoch_ends_with_the_same_bytes(dataset, model, recipe, run, tmp_path, lines, whole):
    folder = tmp_path / "run"
    folder.mkdir()
    facts = {
        "dataset": dataset.to_json(),
        "images": str(dataset.folder),
        "model": model.model_dump(),
        "recipe": recipe().model_dump(),
        "folder": str(folder),
        "kill_at": STEPS + 4,
    }
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    ended = subprocess.run([sys.executable, "-c", CHILD, tmp_path / "facts.json"], capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    # As if the kill had come in the middle of writing a file.
    (folder / ".state-0.safetensors.x1").write_bytes(b"half")
    run(dataset, model, recipe(), folder, lines)
    assert "resumed after epoch 1, step 3" in lines.text
    assert files(folder) == whole


def interrupted(dataset, model, run, recipe, folder, lines) -> None:
    """Leave two states behind: of step 4, and of step 6."""
    for steps in (4, 6):
        with pytest.raises(Interrupted):
            run(dataset, model, recipe, folder, lines, stop=stopping_after(steps, lines))
    lines.lines.clear()


def newest(folder: Path) -> Path:
    return max(folder.glob("state-*"), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty", "no header"])
def test_the_newest_state_is_corrupt(dataset, model, recipe, run, tmp_path, lines, whole, damage):
    interrupted(dataset, model, run, recipe(), tmp_path, lines)
    path = newest(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "cut short":
        content = content[: len(content) // 2]
    elif damage == "one bit":
        content[-1000] ^= 1
    else:
        content = bytearray(b"" if damage == "empty" else b"\2\0\0\0\0\0\0\0{}")
    path.write_bytes(content)
    run(dataset, model, recipe(), tmp_path, lines)
    assert f"warning: {path.name} cannot be read" in lines.text
    assert "resumed after epoch 0, step 4" in lines.text
    assert files(tmp_path) == whole


def test_the_state_of_another_recipe_is_not_taken_up(dataset, model, recipe, run, tmp_path, lines, whole):
    interrupted(dataset, model, run, recipe(lr=1e-3), tmp_path, lines)
    run(dataset, model, recipe(), tmp_path, lines, key="another")
    assert lines.text.count("belongs to another recipe or other images and is not used") == 2
    assert "resumed" not in lines.text
    assert files(tmp_path) == whole


def test_a_save_that_fails_leaves_the_state_before(tmp_path, lines, monkeypatch):
    store = StateStore(tmp_path, "k")
    store.save(({"x": torch.ones(3)}, {"step": 1}))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(({"x": torch.zeros(3)}, {"step": 2}))
    tensors, values = StateStore(tmp_path, "k").load(lines)
    assert values == {"step": 1}
    assert tensors["x"].tolist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["state-1.safetensors"]


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_last_good_state(dataset, model, recipe, run, tmp_path, lines):
    interrupted(dataset, model, run, recipe(), tmp_path, lines)
    with pytest.raises(TrainingDiverged, match=r"lower train.lr \(now 1e\+18\)"):
        run(dataset, model, recipe(epochs=3, lr=1e18, warmup_fraction=0.0, weight_decay=1.0), tmp_path, lines)
    states = list(tmp_path.glob("state-*"))
    assert states
    for path in states:
        for name, tensor in load_file(path).items():
            assert torch.isfinite(tensor).all(), name
    assert not (tmp_path / "model.safetensors").exists()


def test_weights_that_blow_up_after_a_good_loss_are_not_saved(dataset, model, recipe, run, tmp_path, lines, monkeypatch):
    interrupted(dataset, model, run, recipe(), tmp_path, lines)
    before = files(tmp_path)
    step = FineTuning._train_step

    def poisoned(self: FineTuning, batch: Batch) -> None:
        step(self, batch)
        with torch.no_grad():
            self.network.classifier.weight[0, 0] = math.nan

    monkeypatch.setattr(FineTuning, "_train_step", poisoned)
    with pytest.raises(TrainingDiverged, match=r"not finite in epoch 1: classifier\.weight"):
        run(dataset, model, recipe(), tmp_path, lines, stop=lambda: True)
    assert files(tmp_path) == before


FAST = {"batch_size": 24, "epochs": 3, "probe_iterations": 5}  # Three steps per epoch.


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("strategy", ["lp-ft", "full", "gradual", "norm-and-bias"])
def test_every_strategy_resumes_to_the_bit(
    dataset, pretrained, recipe, run, teacher, tmp_path, lines, strategy, taught
):  # fmt: skip
    """Stopped at some step, with and without a teacher whose answers are kept."""
    chosen = recipe(**FAST, strategy=strategy, freeze="stem", clip_norm=1.0)
    more = {"teachers": (teacher,)} if taught else {}
    run(dataset, pretrained, chosen, tmp_path / "whole", **more)
    step = random.Random(strategy + str(taught)).randrange(1, 9)
    for stop in (lambda: lines.steps == step, lambda: False):
        with contextlib.suppress(Interrupted):
            run(dataset, pretrained, chosen, tmp_path / "cut", lines, stop=stop, **more)
    assert f"resumed after epoch {step // 3}, step {step % 3}" in lines.text or step % 3 == 0
    assert lines.steps == 9
    for name in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    if not taught:
        assert {path.name for path in (tmp_path / "cut").iterdir()} == {"model.safetensors", "history.jsonl"}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "lamb", "accumulate": 3, "schedule": "one-cycle"},
        {"optimizer": "sgd", "l2_sp": 0.1, "schedule": "step", "ema_epochs": 0.0, "layer_groups": "thirds"},
        {"balance": "sampler", "batch_norm": "adapt", "mixup": 0.4, "amp": "bfloat16", "schedule": "exponential"},
        {"balance": "weights", "cutmix": 1.0, "policy": "trivialaugment", "average_epochs": False, "strategy": "full"},
        {"distill": {"loss": "features", "views": 2}},
        {"distill": {"loss": "dist", "views": 1}, "mixup": 0.4},
        {"distill": {"loss": "dkd", "cache": False, "label_weight": 0.0}},
    ],
)
def test_so_does_every_other_way(dataset, pretrained, recipe, run, teacher, tmp_path, lines, changes):
    augment = recipe().augment.model_copy(update={k: changes[k] for k in ("mixup", "cutmix", "policy") if k in changes})
    own = {name: value for name, value in changes.items() if name in type(recipe()).model_fields}
    chosen = recipe(**FAST, **own, augment=augment)
    more = {"teachers": (teacher,), "distill": DistillRecipe(**changes["distill"])} if "distill" in changes else {}
    model = pretrained.model_copy(update={"drop_rate": 0.3, "drop_path_rate": 0.2})
    run(dataset, model, chosen, tmp_path / "whole", **more)
    for stop in (4, 5, 99):
        with contextlib.suppress(Interrupted):
            run(dataset, model, chosen, tmp_path / "cut", lines, stop=lambda stop=stop: lines.steps == stop, **more)
    assert lines.steps == 9
    for name in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
