"""Other tasks than one class per image, on a made-up rule with a known answer: a blob's colour, side, size and light."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgetune.artefacts import Dataset, Preprocessing
from edgetune.device.heads import Head, column_names
from edgetune.recipe import ModelRecipe, TaskRecipe
from edgetune.train.evaluate import predict
from edgetune.train.network import NetworkSpec, normalisation
from edgetune.train.scores import score_heads
from edgetune.train.start import load_network

SIZE = 32
COUNTS = {"train": 240, "val": 60, "test": 30}
COLOURS = Head("colour", "single-label", ("red", "green", "blue"))
SIGNS = Head("signs", "multi-label", ("left", "large", "warm"))
SIZES = Head("sizes", "regression", ("radius", "weight"))


def blobs(count: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return images of one blob each, and what is to be learnt of them by the head's name."""
    random = np.random.default_rng(seed)
    x, y = random.uniform(0.2, 0.8, (2, count))
    radius, colour = random.uniform(0.1, 0.25, count), random.integers(0, 3, count)
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    light = random.uniform(0, 1, count)
    images = (random.integers(40, 90, (count, SIZE, SIZE, 3)) + 60 * light[:, None, None, None]).astype(np.uint8)
    for i in range(count):
        inside = (columns - x[i]) ** 2 + (rows - y[i]) ** 2 < radius[i] ** 2
        images[i][inside] = 30
        images[i][inside, colour[i]] = 230
    signs = np.stack([x < 0.5, radius > 0.175, colour == 0], axis=1)
    # In units of its own: mean 1000, standard deviation 3.
    weight = 1000 + 3 * (light - 0.5) * math.sqrt(12)
    return images, {"colour": colour[:, None], "signs": signs, "sizes": np.stack([radius, weight], axis=1)}


def made(folder: Path, heads: tuple[Head, ...], missing: float = 0.0) -> Dataset:
    """Write a data set; of a part of the train images each head's targets are not known."""
    for number, (split, count) in enumerate(COUNTS.items()):
        images, known = blobs(count, seed=number)
        targets = np.concatenate([known[head.name] for head in heads], axis=1).astype(np.float32)
        if missing and split == "train":
            random = np.random.default_rng(100 + number)
            gone = np.concatenate(
                [np.repeat(random.random((count, 1)) < missing, head.target_width, axis=1) for head in heads], axis=1
            )
            targets[gone] = np.nan
        (folder / split).mkdir(parents=True)
        for name, content in {"images": images, "targets": targets, "labels": np.zeros(count, np.int64)}.items():
            np.save(folder / split / f"{name}.npy", content)
        if split == "train":
            np.save(folder / split / "source.npy", images)
    return Dataset(
        source="blobs",
        classes=column_names(heads),
        heads=heads,
        strata=("all",),
        preprocessing=Preprocessing(height=SIZE, width=SIZE),
        source_size=(SIZE, SIZE),
        counts=COUNTS,
        class_counts={split: (count,) for split, count in COUNTS.items()},
        content_digest="0" * 64,
        golden=(),
    ).at(folder)


def still(recipe: Any) -> Any:
    """Return random views that leave what is to be learnt as it is."""
    geometry = {"crop_min_area": 1.0, "aspect": 1.0, "flip": False, "rotation_degrees": 0.0}
    return recipe().augment.model_copy(update={**geometry, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0})


def learnt(run: Any, recipe: Any, folder: Path, heads: tuple[Head, ...], *, missing: float = 0.0, **more: Any) -> Any:
    dataset = made(folder / "data", heads, missing)
    tasks = {head.name: TaskRecipe(kind=head.kind) for head in heads} | more.pop("tasks", {})
    chosen = recipe(**{"epochs": 10, "batch_size": 16, "lr": 1e-2, "augment": still(recipe)} | more)
    model = ModelRecipe(backbone="test_efficientnet", weights="none", drop_rate=0.0)
    return dataset, run(dataset, model, chosen, folder / "run", tasks=tasks)


def outputs(dataset: Dataset, checkpoint: Any, split: str = "test") -> np.ndarray:
    """What the finished network says, as the export will."""
    plain = normalisation(NetworkSpec(backbone="test_efficientnet"))
    logits: np.ndarray = predict(load_network(checkpoint), plain, dataset.images(split), torch.device("cpu")).numpy()
    return logits


def test_labels_are_learnt_and_their_thresholds_chosen(run, recipe, tmp_path) -> None:
    dataset, checkpoint = learnt(run, recipe, tmp_path, (SIGNS,))
    found = score_heads(checkpoint.heads, outputs(dataset, checkpoint), dataset.targets("test"), 0.0)
    assert found.metrics["mAP %"] > 85  # Chance is about 45.
    (head,) = checkpoint.heads
    assert len(head.thresholds) == 3
    decided = 1 / (1 + np.exp(-outputs(dataset, checkpoint, "val"))) >= np.array(head.thresholds)
    truth = dataset.targets("val") == 1
    f1 = 2 * (decided & truth).sum(axis=0) / (decided.sum(axis=0) + truth.sum(axis=0))
    assert (f1 > 0.75).all()
    # On the images that they were chosen on, they are no worse than one half.
    half = outputs(dataset, checkpoint, "val") >= 0
    assert (f1 >= 2 * (half & truth).sum(axis=0) / (half.sum(axis=0) + truth.sum(axis=0)) - 1e-9).all()


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_values_come_out_in_their_own_units(run, recipe, tmp_path, loss) -> None:
    tasks = {"sizes": TaskRecipe(kind="regression", loss=loss)}
    dataset, checkpoint = learnt(run, recipe, tmp_path, (SIZES,), tasks=tasks)
    said, truth = outputs(dataset, checkpoint), dataset.targets("test")
    assert 995 < said[:, 1].mean() < 1005
    assert np.abs(said[:, 1] - truth[:, 1]).mean() < 1.5  # Of who always says 1000: 2.6.
    assert 0.1 < said[:, 0].mean() < 0.25
    found = score_heads(checkpoint.heads, outputs(dataset, checkpoint, "val"), dataset.targets("val"), 0.0)
    assert found.metrics == pytest.approx(checkpoint.val_metrics, rel=1e-3, abs=1e-3)
    assert checkpoint.heads == (SIZES,)


def test_two_heads_learn_from_images_that_know_only_one(run, recipe, tmp_path) -> None:
    dataset, checkpoint = learnt(run, recipe, tmp_path, (COLOURS, SIZES), missing=0.4)
    found = score_heads(checkpoint.heads, outputs(dataset, checkpoint), dataset.targets("test"), 0.0)
    assert found.metrics["colour: top-1 %"] > 85
    assert found.metrics["sizes: weight R²"] > 0.4
    assert checkpoint.classes == ("colour: red", "colour: green", "colour: blue", "sizes: radius", "sizes: weight")
    assert set(checkpoint.val_metrics) == set(found.metrics)


def test_a_linear_probe_knows_every_task(run, recipe, tmp_path, dataset, pretrained) -> None:
    """On features of random weights it cannot do much, but the colour of a blob is there for the taking."""
    mine = made(tmp_path / "data", (COLOURS, SIGNS, SIZES), missing=0.2)
    tasks = {head.name: TaskRecipe(kind=head.kind) for head in mine.heads}
    checkpoint = run(mine, pretrained, recipe(strategy="linear-probe"), tmp_path / "run", tasks=tasks)
    found = score_heads(checkpoint.heads, outputs(mine, checkpoint), mine.targets("test"), 0.0)
    assert found.metrics["colour: top-1 %"] > 70
    assert found.metrics["sizes: weight R²"] > 0.2
    assert 990 < outputs(mine, checkpoint)[:, 7].mean() < 1010
    assert len(checkpoint.heads[1].thresholds) == 3


@pytest.mark.slow
def test_a_student_learns_every_task_from_a_teacher(run, recipe, tmp_path) -> None:
    """Nine of ten of its own targets are unknown; the teacher, who had them, fills in for the others."""
    heads = (COLOURS, SIZES)
    _, teacher = learnt(run, recipe, tmp_path / "teacher", heads)
    dataset = made(tmp_path / "data", heads, missing=0.9)
    tasks = {head.name: TaskRecipe(kind=head.kind) for head in heads}
    model = ModelRecipe(backbone="test_efficientnet", weights="none", drop_rate=0.0)
    figures = []
    for folder, more in ((tmp_path / "alone", {}), (tmp_path / "taught", {"teachers": (teacher,)})):
        chosen = recipe(epochs=6, batch_size=16, lr=1e-2, augment=still(recipe))
        checkpoint = run(dataset, model, chosen, folder, tasks=tasks, **more)
        figures.append(score_heads(checkpoint.heads, outputs(dataset, checkpoint), dataset.targets("test"), 0.0).score)
    alone, taught = figures
    assert taught > alone + 15
