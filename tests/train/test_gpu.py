"""The same code on a GPU: against the CPU's result, in mixed precision, compiled, and on several GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgetune.artefacts import Checkpoint, Dataset
from edgetune.recipe import ModelRecipe, TrainRecipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:.*deterministic.*"),
]

Run = Callable[..., Checkpoint]


def test_float32_follows_the_cpu(
    dataset: Dataset, model: ModelRecipe, recipe: Callable[..., TrainRecipe], run: Run, tmp_path: Path, lines: Any
) -> None:
    histories = []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        folder.mkdir()
        plain = recipe(device=device, epochs=2, amp="float32", layout="channels-last", compile="no", lr=1e-3)
        histories.append(run(dataset, model, plain, folder, lines).history())
    cpu, cuda = histories
    for ours, theirs in zip(cpu, cuda, strict=True):
        assert theirs["val_loss"] == pytest.approx(ours["val_loss"], rel=0.02)


def test_what_is_fastest_is_measured_and_written_down(
    dataset: Dataset, model: ModelRecipe, recipe: Callable[..., TrainRecipe], run: Run, tmp_path: Path, lines: Any
) -> None:
    checkpoint = run(dataset, model, recipe(device="cuda", epochs=8, lr=1e-2), tmp_path, lines)
    measured = checkpoint.settings["measured_ms"]
    assert len(measured) == 6
    assert min(measured, key=measured.get) == f"{checkpoint.settings['layout']} {checkpoint.settings['dtype']}"
    assert checkpoint.val_metrics["top-1 %"] > 60


@pytest.mark.slow
# torch.compile imports a module of torch's own that torch says not to use.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_training_learns_the_same(
    dataset: Dataset, model: ModelRecipe, recipe: Callable[..., TrainRecipe], run: Run, tmp_path: Path, lines: Any
) -> None:
    losses = []
    for choice in ("no", "yes"):
        folder = tmp_path / choice
        folder.mkdir()
        chosen = recipe(device="cuda", epochs=2, amp="float32", layout="contiguous", compile=choice, lr=1e-3)
        losses.append(run(dataset, model, chosen, folder, lines).history()[-1]["val_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs a GPU for each of two processes")
def test_two_gpus_give_what_one_gives(tmp_path: Path) -> None:
    losses = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "edgetune", "train"]
        settings = {"train.device": "cuda", "train.epochs": 1, "train.amp": "float32", "model.drop_rate": 0}
        arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        subprocess.run([*line, "--data", "digits", "--output", str(output), *arguments], check=True, timeout=300)
        history = next(output.glob("stages/train/*/history.jsonl")).read_text().splitlines()
        losses.append(json.loads(history[-1])["val_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
