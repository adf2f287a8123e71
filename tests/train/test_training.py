"""The whole stage on a tiny network and tiny images: it learns, and it ends the same whatever happens on the way."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgetune.errors import Interrupted, TargetError, TrainingDiverged, UsageError, WeightsError
from edgetune.recipe import DistillRecipe
from edgetune.train.evaluate import predict
from edgetune.train.finetune import FineTuning
from edgetune.train.network import NetworkSpec, normalisation
from edgetune.train.objective import Objective
from edgetune.train.stage import TrainJob, train
from edgetune.train.start import features, load_network
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


@pytest.mark.parametrize("average", [False, True])
def test_learns_and_says_so(dataset, model, recipe, run, tmp_path, lines, average):
    lr = 2e-2 if average else 1e-2
    checkpoint = run(dataset, model, recipe(epochs=8, lr=lr, average_epochs=average), tmp_path, lines)
    assert checkpoint.val_metrics["top-1 %"] >= 60  # chance is 33
    assert not checkpoint.warnings
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == list(range(9))
    assert [line for line in lines.lines if line.startswith("epoch ")][-1].startswith("epoch 8/8: train loss")
    assert set(files(tmp_path)) == {"model.safetensors", "history.jsonl"}
    logits = predict(load_network(checkpoint), normalised(), dataset.images("val"), torch.device("cpu"))
    objective = Objective(dataset.heads, {}, dataset.targets("train"), label_smoothing=0.1)
    reached = objective.scores(logits, dataset.targets("val"))
    assert reached.metrics == checkpoint.val_metrics
    best = history[checkpoint.best_epoch]
    assert bool(checkpoint.averaged_epochs) == average  # so fast, the mean validates better than the best epoch
    if average:
        assert reached.loss < best["val_loss"]
        assert any(line.startswith("mean of the last 6 epochs") and line.endswith("(kept)") for line in lines.lines)
    else:
        assert reached.loss == pytest.approx(best["val_loss"], abs=1e-5)
        assert best["val_metrics"] == checkpoint.val_metrics
        assert best["val_score"] == checkpoint.val_metrics["top-1 %"]


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


def test_patience_ends_the_run_early(dataset, model, recipe, run, tmp_path, lines):
    # A rate of almost nothing improves nothing that the top-1 could see for long.
    checkpoint = run(dataset, model, recipe(epochs=30, lr=1e-12, patience=2, batch_norm="frozen"), tmp_path, lines)
    assert checkpoint.epochs == checkpoint.best_epoch + 2
    assert checkpoint.epochs < 30


def normalised():
    return normalisation(NetworkSpec(backbone="test_efficientnet"))


@pytest.mark.parametrize(("batch_norm", "same"), [("frozen", True), ("adapt", False)])
def test_frozen_batch_norms_keep_their_statistics_to_the_bit(dataset, recipe, tuned, batch_norm, same):
    tuning = tuned(dataset, recipe(batch_norm=batch_norm))
    state = tuning.network.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items() if "running" in name or "num_b" in name}
    tuning._train_step(next(tuning.feed.stream(0, 0, 0)))
    now = tuning.network.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items()) == same


# No span: the raw weights. A long one: it grows from nothing, and after one step the average is ten elevenths new.
@pytest.mark.parametrize(("span", "share"), [(0.0, 1.0), (1e9, 10 / 11)])
def test_the_average_moves_from_the_old_weights_to_the_new(dataset, recipe, tuned, span, share):
    tuning = tuned(dataset, recipe(ema_epochs=span, batch_norm="adapt"))
    before = tuning.network.classifier.bias.detach().clone()
    tuning._train_step(next(tuning.feed.stream(0, 0, 0)))
    expected = before + (tuning.network.classifier.bias - before) * share
    assert torch.allclose(tuning.average.network.classifier.bias, expected, atol=1e-7)
    assert not torch.equal(before, tuning.network.classifier.bias)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


FAST = {"batch_size": 24, "epochs": 3, "probe_iterations": 5}  # Three steps per epoch.


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("strategy", ["lp-ft", "full", "gradual", "norm-and-bias"])
def test_every_strategy_resumes_to_the_bit(
    dataset, pretrained, recipe, run, teacher, tmp_path, lines, strategy, taught
):  # fmt: skip
    """Stopped at some step, with and without a teacher whose answers are kept."""
    chosen = recipe(**FAST, strategy=strategy, freeze="stem", clip_norm=1.0)
    more = {"teacher": teacher} if taught else {}
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
    more = {"teacher": teacher, "distill": DistillRecipe(**changes["distill"])} if "distill" in changes else {}
    model = pretrained.model_copy(update={"drop_rate": 0.3, "drop_path_rate": 0.2})
    run(dataset, model, chosen, tmp_path / "whole", **more)
    for stop in (4, 5, 99):
        with contextlib.suppress(Interrupted):
            run(dataset, model, chosen, tmp_path / "cut", lines, stop=lambda stop=stop: lines.steps == stop, **more)
    assert lines.steps == 9
    for name in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("clip", "taught"), [(0.0, False), (0.5, True)])
def test_steps_in_parts_give_the_same_weights(dataset, pretrained, recipe, run, teacher, tmp_path, clip, taught):
    """By SGD: where a gradient is nearly nothing, Adam makes a step out of how it was rounded."""
    plain = {"batch_size": 24, "probe_iterations": 1, "optimizer": "sgd", "lr": 3e-3, "clip_norm": clip}
    more = {"teacher": teacher, "distill": DistillRecipe(loss="kl")} if taught else {}
    for parts in (1, 4):
        checkpoint = run(dataset, pretrained, recipe(**plain, accumulate=parts), tmp_path / str(parts), **more)
        assert checkpoint.best_epoch + checkpoint.averaged_epochs > 0  # Not the weights that it began with.
    one, four = weights(tmp_path / "1"), weights(tmp_path / "4")
    for name, tensor in one.items():
        assert torch.allclose(tensor.double(), four[name].double(), atol=1e-6), name


def test_gradients_are_clipped_to_the_norm(dataset, recipe, tuned):
    """A step of plain SGD is as long as its rate times the clipped gradient."""
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "layer_decay": 1.0, "lr": 1.0, "batch_norm": "adapt"}
    lengths = []
    for clip in (0.0, 0.01, 1e5):
        tuning = tuned(dataset, recipe(**plain, clip_norm=clip))
        before = [parameter.detach().clone() for parameter in tuning.network.parameters()]
        tuning.learner.step(next(tuning.feed.stream(0, 0, 0)), 1.0)
        moved = [now.detach() - then for now, then in zip(tuning.network.parameters(), before, strict=True)]
        lengths.append(torch.cat([one.flatten() for one in moved]).norm().item())
    free, clipped, loose = lengths
    assert clipped == pytest.approx(0.01, rel=1e-3)
    assert loose == free > 0.1


def test_l2_sp_stays_nearer_to_the_pretrained_weights(dataset, pretrained, recipe, run, tmp_path):
    origin = load_file(Path(pretrained.weights))
    distances = []
    for strength in (0.0, 10.0):
        folder = tmp_path / str(strength)
        run(dataset, pretrained, recipe(l2_sp=strength, weight_decay=0.0, lr=1e-2), folder)
        body = {name: tensor for name, tensor in weights(folder).items() if "classifier" not in name and "num" not in name}
        distances.append(sum((tensor - origin[name]).square().sum().item() for name, tensor in body.items()))
    assert distances[1] < 0.8 * distances[0]


def test_a_linear_probe_is_the_head_alone(dataset, pretrained, recipe, run, tmp_path, lines):
    checkpoint = run(dataset, pretrained, recipe(strategy="linear-probe", epochs=7), tmp_path, lines)
    assert (checkpoint.epochs, lines.steps) == (0, 0)
    assert checkpoint.val_metrics["top-1 %"] > 60
    origin = load_file(Path(pretrained.weights))
    for name, tensor in weights(tmp_path).items():
        assert name.startswith("classifier") or torch.equal(tensor, origin[name]), name


def test_a_linear_probe_on_random_weights_learns_too(dataset, model, recipe, run, tmp_path):
    """Else nothing would; a seed of its own gives it the network that its features came from."""
    checkpoint = run(dataset, model, recipe(strategy="linear-probe"), tmp_path, seed=3)
    assert checkpoint.val_metrics["top-1 %"] > 45


def test_rare_classes_are_not_forgotten(dataset, pretrained, recipe, run, tmp_path):
    """Weights and sampler each find more of a class of which there are few."""
    folder = tmp_path / "few"
    shutil.copytree(dataset.folder, folder)
    labels = dataset.labels("train")
    rows = np.flatnonzero((labels != 2) | (np.arange(72) < 9))
    for name in ("labels", "images", "source"):
        np.save(folder / "train" / f"{name}.npy", np.load(dataset.folder / "train" / f"{name}.npy")[rows])
    few = dataset.model_copy(update={"counts": {**dataset.counts, "train": len(rows)}}).at(folder)
    found = {}
    for balance in ("none", "weights", "sampler"):
        settings = recipe(strategy="full", epochs=2, lr=1e-3, balance=balance, average_epochs=False, batch_norm="frozen")
        network = load_network(run(few, pretrained, settings, tmp_path / balance))
        logits = predict(network, normalised(), dataset.images("val"), torch.device("cpu"))
        found[balance] = logits.softmax(dim=1)[:, 2].mean().item()
    assert min(found["weights"], found["sampler"]) > found["none"] + 0.03


@pytest.mark.parametrize("option", ["strategy", "schedule"])
def test_the_history_says_how_fast_the_head_learnt(dataset, model, recipe, run, tmp_path, option):
    if option == "strategy":
        checkpoint = run(dataset, model, recipe(epochs=2, schedule="constant", warmup_fraction=0.0, lr=1e-3), tmp_path)
        assert [line["lr"] for line in checkpoint.history()] == pytest.approx([0, 1e-3, 1e-3])
        return
    checkpoint = run(dataset, model, recipe(epochs=2, schedule="cosine", lr=1e-3, final_lr_fraction=0.0), tmp_path)
    rates = [line["lr"] for line in checkpoint.history()]
    assert rates[0] == 0
    assert rates[1] > 5e-4
    assert 0 < rates[2] < 2e-5


def test_whoever_watches_hears_whether_it_came_to_its_end(dataset, model, recipe, run, tmp_path, lines):
    heard: list[tuple[str, object]] = []

    class Listener:
        def step(self, step, values):
            heard.append(("step", step))

        def epoch(self, epoch, values):
            heard.append(("epoch", epoch))

        def close(self, *, complete=True):
            heard.append(("complete", complete))

    def opened(step, settings):
        heard.append(("from", step))
        assert settings["batch_size"] == 24
        return Listener()

    job = TrainJob(dataset=dataset, model=model, recipe=recipe(**FAST), seed=0, key="k", folder=tmp_path)
    with pytest.raises(Interrupted):
        train(job, lines, lambda: lines.steps == 4, opened)
    cut = [("from", 0), ("epoch", 0), *(("step", n) for n in (1, 2, 3)), ("epoch", 1), ("step", 4), ("complete", False)]
    assert heard == cut
    heard.clear()
    train(job, lines, lambda: False, opened)
    rest = [("step", 5), ("step", 6), ("epoch", 2), *(("step", n) for n in (7, 8, 9)), ("epoch", 3), ("complete", True)]
    assert heard == [("from", 4), *rest]


def test_no_epochs_keep_what_there_was(dataset, model, recipe, run, tmp_path, lines):
    checkpoint = run(dataset, model, recipe(epochs=0), tmp_path, lines)
    assert (checkpoint.epochs, checkpoint.best_epoch) == (0, 0)
    assert "before fine-tuning, with a random head" in lines.text
    assert "linear probe" not in lines.text


def test_batches_larger_than_the_train_set_are_said(dataset, model, recipe, run, tmp_path, lines):
    run(dataset, model, recipe(epochs=1, batch_size=512), tmp_path, lines)
    assert "warning: batches of 72 images instead of 512" in lines.text
    assert lines.steps == 1


def test_a_network_that_learned_nothing_is_warned_of(dataset, model, recipe, run, tmp_path, lines):
    shutil.copytree(dataset.folder, tmp_path / "blank")
    for path in tmp_path.glob("blank/*/[is]*.npy"):
        np.save(path, np.zeros_like(np.load(path)))
    checkpoint = run(dataset.at(tmp_path / "blank"), model, recipe(epochs=1), tmp_path / "run", lines)
    assert checkpoint.warnings[0].startswith("the network learned nothing: it does no better")


def test_what_the_process_had_set_comes_back(dataset, model, recipe, run, tmp_path, lines):
    threads, mode, state = torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.get_rng_state()
    run(dataset, model, recipe(epochs=0, threads=threads + 1), tmp_path, lines)
    assert f"with {threads + 1} threads" in lines.text
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == (threads, mode)
    assert torch.equal(torch.get_rng_state(), state)


def test_mixup_trains(dataset, model, recipe, run, tmp_path, lines):
    run(dataset, model, recipe(epochs=1, augment=recipe().augment.model_copy(update={"mixup": 0.4})), tmp_path, lines)
    assert lines.steps == STEPS


def test_a_transformer_takes_another_image_size(dataset, model, recipe, run, tmp_path, lines):
    vit = model.model_copy(update={"backbone": "test_vit"})
    checkpoint = run(dataset, vit, recipe(epochs=1), tmp_path, lines)
    assert checkpoint.network["options"]["img_size"] == 32
    assert load_network(checkpoint)(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_there(dataset, model, recipe, run, tmp_path, lines):
    with pytest.raises(TargetError, match="torch finds no GPU"):
        run(dataset, model, recipe(device="cuda"), tmp_path, lines)
    assert not list(tmp_path.iterdir())


def test_a_gpu_without_enough_memory_says_which_batch_to_try(dataset, model, recipe, run, tmp_path, lines, monkeypatch):
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FineTuning, "_train_step", exhausted)
    with pytest.raises(UsageError, match=r"batches of 8 images\n.*train\.accumulate = 2 .*train\.batch_size = 4"):
        run(dataset, model, recipe(), tmp_path, lines)


def test_a_checkpoint_of_another_architecture_does_not_load(dataset, model, recipe, run, tmp_path, lines):
    checkpoint = run(dataset, model, recipe(epochs=0), tmp_path, lines)
    changed = {"backbone": "test_resnet", "network": {**checkpoint.network, "backbone": "test_resnet"}}
    other = checkpoint.model_copy(update=changed).at(tmp_path)
    with pytest.raises(WeightsError, match=r"model\.safetensors does not fit test_resnet"):
        load_network(other)
    checkpoint.weights_path.unlink()
    with pytest.raises(WeightsError, match="does not fit"):
        load_network(checkpoint)


def test_a_signal_while_features_are_extracted(dataset, pretrained, recipe, run, tmp_path, lines):
    with pytest.raises(Interrupted, match="interrupted at the features of the train images"):
        features(
            dataset, pretrained, recipe(), functions="any", seed=0, folder=tmp_path, progress=lines, stop=lambda: True
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
    checkpoint = run(dataset, pretrained, recipe(epochs=0), tmp_path / "run", lines)
    assert "linear probe: validation loss" in lines.text
    assert checkpoint.weights["kind"] == "path"
    assert np.isfinite(load_file(checkpoint.weights_path)["classifier.weight"].numpy()).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation")
def test_trains_on_a_gpu_in_mixed_precision_and_resumes(dataset, model, recipe, run, tmp_path, lines):
    on_gpu = recipe(device="cuda", epochs=8, lr=1e-2)
    with pytest.raises(Interrupted):
        run(dataset, model, on_gpu, tmp_path, lines, stop=stopping_after(5, lines))
    checkpoint = run(dataset, model, on_gpu, tmp_path, lines)
    assert "resumed after epoch 0, step 5" in lines.text
    assert checkpoint.val_metrics["top-1 %"] >= 60
    assert load_network(checkpoint)(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_the_mean_of_epochs_leaves_out_the_first_ones() -> None:
    from edgetune.train.soup import EpochMean

    mean = EpochMean()
    for epoch in range(1, 11):
        state = {"weight": torch.full((2,), float(epoch)), "count": torch.tensor(epoch)}
        mean.add(state, epoch=epoch, epochs=10)
    assert mean.count == 7
    torch.testing.assert_close(mean.tensors["weight"], torch.full((2,), 7.0))
    assert int(mean.tensors["count"]) == 10
