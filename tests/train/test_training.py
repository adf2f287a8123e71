"""The whole stage on a tiny network and tiny images: it learns, and says what it did; `test_resuming` has the interruptions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgetune.errors import Interrupted
from edgetune.recipe import DistillRecipe
from edgetune.train.evaluate import predict
from edgetune.train.network import NetworkSpec, normalisation
from edgetune.train.objective import Objective
from edgetune.train.stage import TrainJob, train
from edgetune.train.start import load_network

STEPS = 9  # per epoch: 72 images in batches of 8


@pytest.mark.parametrize("average", [False, True])
def test_learns_and_says_so(dataset, model, recipe, run, tmp_path, lines, average):
    lr = 2e-2 if average else 1e-2
    checkpoint = run(dataset, model, recipe(epochs=8, lr=lr, average_epochs=average), tmp_path, lines)
    assert checkpoint.val_metrics["top-1 %"] >= 60  # chance is 33
    assert not checkpoint.warnings
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == list(range(9))
    assert [line for line in lines.lines if ": train loss" in line][-1].startswith("epoch 8/8: train loss")
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "history.jsonl"}
    logits = predict(load_network(checkpoint), normalised(), dataset.images("val"), torch.device("cpu"))
    objective = Objective(dataset.heads, {}, dataset.targets("train"), label_smoothing=0.1)
    reached = objective.scores(logits, dataset.targets("val"))
    assert reached.metrics == checkpoint.val_metrics
    kept = history[checkpoint.best_epoch]
    assert bool(checkpoint.averaged_epochs) == average  # so fast, the mean validates better than the last epoch
    if average:
        assert reached.loss < kept["val_loss"]
        assert any(line.startswith("mean of the last 4 epochs") and line.endswith("(kept)") for line in lines.lines)
    else:
        assert reached.loss == pytest.approx(kept["val_loss"], abs=1e-5)
        assert kept["val_metrics"] == checkpoint.val_metrics
        assert kept["val_score"] == checkpoint.val_metrics["top-1 %"]


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


@pytest.mark.parametrize(("clip", "taught"), [(0.0, False), (0.5, True)])
def test_steps_in_parts_give_the_same_weights(dataset, pretrained, recipe, run, teacher, tmp_path, clip, taught):
    """By SGD: where a gradient is nearly nothing, Adam makes a step out of how it was rounded."""
    plain = {"batch_size": 24, "probe_iterations": 1, "optimizer": "sgd", "lr": 3e-3, "clip_norm": clip}
    more = {"teachers": (teacher,), "distill": DistillRecipe(loss="kl")} if taught else {}
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

    job = TrainJob(
        dataset=dataset,
        model=model,
        recipe=recipe(batch_size=24, epochs=3, probe_iterations=5),
        seed=0,
        key="k",
        folder=tmp_path,
    )
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation")
def test_trains_on_a_gpu_in_mixed_precision_and_resumes(dataset, model, recipe, run, tmp_path, lines):
    on_gpu = recipe(device="cuda", epochs=8, lr=1e-2)
    with pytest.raises(Interrupted):
        run(dataset, model, on_gpu, tmp_path, lines, stop=lambda: lines.steps >= 5)
    checkpoint = run(dataset, model, on_gpu, tmp_path, lines)
    assert "resumed after epoch 0, step 5" in lines.text
    assert checkpoint.val_metrics["top-1 %"] >= 60
    assert load_network(checkpoint)(torch.zeros(1, 3, 32, 32)).isfinite().all()
