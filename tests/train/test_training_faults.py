"""What a training is refused for, or stopped by: a missing GPU, its memory, weights of another network, a signal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgetune.errors import Interrupted, TargetError, UsageError, WeightsError
from edgetune.train.finetune import FineTuning
from edgetune.train.start import features, load_network


def test_a_gpu_that_is_not_there(dataset, model, recipe, run, tmp_path, lines, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
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
