"""Pickled checkpoints: opened by their digest alone, and never run."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch

from edgetune.errors import WeightsError
from edgetune.train.weights import Weights, load_into

from .weights import BACKBONE, SPEC, from_path, plain, sha256

# --- pip packages


# --- paths


# --- pickles


def test_a_pickle_is_opened_only_by_digest(donor, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in donor.items()}, "epoch": 3}, path)
    with pytest.raises(WeightsError, match=f"is a pickle.*\n.*set model.weights_sha256 = {sha256(path)}"):
        from_path(path)
    network = plain()
    load_into(network, from_path(path, sha256(path)), SPEC)
    assert torch.equal(network.conv_stem.weight, donor["conv_stem.weight"])


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_pickle_that_runs_code_is_refused_even_with_its_digest(tmp_path, by_torch):
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    evil = {"state_dict": Payload(mark)}
    if by_torch:
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(WeightsError, match=r"evil\.pth holds more than tensors, and is not opened\n.*safetensors"):
        load_into(plain(), from_path(path, sha256(path)), SPEC)
    assert not mark.exists()
    assert b"system" in path.read_bytes()  # The payload is there, so that this test could fail.


def test_a_pickle_of_something_else_is_refused(tmp_path):
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match="not a table of tensors"):
        load_into(plain(), from_path(path, sha256(path)), SPEC)


# --- checkpoints of timm's training


def timm_checkpoint(path: Path, donor: dict[str, torch.Tensor], **more: object) -> Weights:
    content = {
        "epoch": 3,
        "arch": BACKBONE,
        "state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in donor.items()},
        "optimizer": {"state": {0: {"momentum": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        "version": 2,
        "args": argparse.Namespace(model=BACKBONE, mean=[0.5], opt_betas=None, amp=True, lr=1e-3),
        "metric": 71.5,
    }
    torch.save(content | more, path)
    return from_path(path, sha256(path))


def test_the_average_of_a_training_checkpoint_is_preferred_and_said(donor, tmp_path):
    average = {name: tensor + 1 for name, tensor in donor.items()}
    weights = timm_checkpoint(tmp_path / "last.pth.tar", donor, state_dict_ema=average)
    assert weights.reference == "last.pth.tar, the exponential average (state_dict_ema)"
    network = plain()
    load_into(network, weights, SPEC)
    assert torch.equal(network.conv_stem.weight, average["conv_stem.weight"])


@pytest.mark.parametrize("more", [{}, {"state_dict_ema": None}])
def test_a_training_checkpoint_without_an_average(donor, tmp_path, more):
    weights = timm_checkpoint(tmp_path / "last.pth.tar", donor, **more)
    assert weights.reference == "last.pth.tar"
    network = plain()
    load_into(network, weights, SPEC)
    assert torch.equal(network.conv_stem.weight, donor["conv_stem.weight"])


def test_a_training_checkpoint_of_another_backbone_is_refused_by_name(donor, tmp_path):
    with pytest.raises(WeightsError, match=f"model.backbone: .* of another; got {BACKBONE}; expected resnet18"):
        timm_checkpoint(tmp_path / "last.pth.tar", donor, arch="resnet18")
    timm_checkpoint(tmp_path / "last.pth.tar", donor, arch="what somebody called it")


def test_the_command_line_in_a_checkpoint_may_hold_nothing_that_runs(donor, tmp_path):
    mark = tmp_path / "ran"
    with pytest.raises(WeightsError, match=r"last\.pth holds more than tensors, and is not opened"):
        timm_checkpoint(tmp_path / "last.pth", donor, args=argparse.Namespace(evil=Payload(mark)))
    assert not mark.exists()
    # What was allowed for one file is not allowed for what comes after it.
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


# --- the hub
