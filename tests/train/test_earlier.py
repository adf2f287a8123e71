"""Weights from an earlier run of edgetune: the one checkpoint in its folder, unchanged, and of a network that goes on so."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgetune.artefacts import Checkpoint
from edgetune.device.preprocess import Preprocessing
from edgetune.errors import ArtefactError, WeightsError
from edgetune.files import sha256_file
from edgetune.progress import Silent
from edgetune.recipe import ModelRecipe
from edgetune.stagecache import StageCache
from edgetune.train.earlier import checkpoint_at, weights_file
from edgetune.train.network import NetworkSpec, create_network, normalisation
from edgetune.train.weights import load_into, resolve

BACKBONE = "test_efficientnet"


def trained(run: Path, seed: int = 0, **changes: object) -> Checkpoint:
    """A run folder with a checkpoint, as the stage cache leaves it."""
    spec = NetworkSpec(**{"backbone": BACKBONE} | changes)

    def compute(folder: Path, _: str) -> Checkpoint:
        torch.manual_seed(seed)
        tensors = create_network(spec, 3).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
        (folder / "history.jsonl").write_text("{}\n")
        normalise = normalisation(spec)
        return Checkpoint(
            backbone=spec.backbone,
            classes=("a", "b", "c"),
            preprocessing=Preprocessing(height=64, width=64),
            mean=normalise.mean,
            std=normalise.std,
            network=spec.to_json(),
            weights={"kind": "none", "reference": "random", "sha256": ""},
            val_metrics={"top-1 %": 50.0},
            best_epoch=1,
            epochs=1,
        ).at(folder)

    return StageCache(run, Silent()).value(Checkpoint, "train", {"seed": seed} | spec.to_json(), compute)


def asked(path: Path, **changes: str) -> ModelRecipe:
    return ModelRecipe(**{"backbone": BACKBONE, "weights": str(path)} | changes)


@pytest.mark.parametrize("below", [False, True])
def test_a_run_goes_on_with_another_head(tmp_path, below):
    checkpoint = trained(tmp_path / "run", hidden=(4,))
    path = checkpoint.folder if below else tmp_path / "run"
    weights = resolve(asked(path))
    assert weights.to_json() == {
        "kind": "run",
        "reference": f"an earlier run of edgetune ({path.name}, {BACKBONE})",
        "sha256": sha256_file(checkpoint.weights_path),
    }
    assert weights_file(path) == checkpoint.weights_path
    assert weights_file(checkpoint.weights_path) == checkpoint.weights_path
    spec = NetworkSpec(backbone=BACKBONE)
    network = create_network(spec, 5)
    head = network.classifier.weight.clone()
    load_into(network, weights, spec)
    torch.manual_seed(0)
    donor = create_network(NetworkSpec(backbone=BACKBONE, hidden=(4,)), 3)
    assert torch.equal(network.conv_stem.weight, donor.conv_stem.weight)
    assert torch.equal(network.classifier.weight, head)


def test_the_digest_that_the_recipe_gives_is_the_weights(tmp_path):
    checkpoint = trained(tmp_path)
    assert resolve(asked(tmp_path, weights_sha256=sha256_file(checkpoint.weights_path))).kind == "run"
    with pytest.raises(WeightsError, match=r"wrong sha256"):
        resolve(asked(tmp_path, weights_sha256="a" * 64))


def test_a_folder_without_a_checkpoint(tmp_path):
    (tmp_path / "stages" / "train" / "abc").mkdir(parents=True)  # Unfinished work.
    with pytest.raises(WeightsError, match=r"holds no checkpoint\n.*in which training has ended"):
        resolve(asked(tmp_path))


def test_of_several_checkpoints_one_must_be_chosen(tmp_path):
    old, new = trained(tmp_path, seed=1), trained(tmp_path, seed=2)
    os.utime(old.folder / "stage.json", (1, 1))
    with pytest.raises(WeightsError, match="holds 2 checkpoints") as caught:
        resolve(asked(tmp_path))
    assert [fault.problem for fault in caught.value.faults] == [str(new.folder), str(old.folder)]
    # One that the cache has put aside is none.
    shutil.move(old.folder, old.folder.with_name(f"{old.folder.name}.damaged"))
    assert checkpoint_at(tmp_path).folder == new.folder


def test_changed_weights_are_noticed(tmp_path):
    checkpoint = trained(tmp_path)
    content = bytearray(checkpoint.weights_path.read_bytes())
    content[-1] ^= 1
    checkpoint.weights_path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"not what was written there: model\.safetensors was changed"):
        resolve(asked(tmp_path))


def test_a_stage_of_another_kind_or_version_is_refused(tmp_path):
    checkpoint = trained(tmp_path)
    record = json.loads((checkpoint.folder / "stage.json").read_text())
    record["value"]["new"] = 1
    (checkpoint.folder / "stage.json").write_text(json.dumps(record))
    with pytest.raises(ArtefactError, match=r"stage\.json is not that of a checkpoint of this version"):
        resolve(asked(tmp_path))


def test_a_run_of_another_backbone(tmp_path):
    trained(tmp_path)
    with pytest.raises(WeightsError, match=f"model.backbone: .*; got resnet18; expected {BACKBONE}"):
        resolve(asked(tmp_path, backbone="resnet18"))


def test_a_run_that_does_not_go_on_so_is_refused_with_all_reasons(tmp_path):
    trained(tmp_path, channels=1, stages=2, activation="relu")
    spec = NetworkSpec(backbone=BACKBONE)
    with pytest.raises(WeightsError) as caught:
        load_into(create_network(spec, 3), resolve(asked(tmp_path)), spec)
    assert [str(fault) for fault in caught.value.faults] == [
        "data.channels: the run had other channels; got 3; expected 1",
        "model.stages: the run kept fewer; got all; expected 2 at most",
        "model.activation: the run had exchanged its activations; got keep; expected relu",
    ]


def test_tags_of_one_backbone_may_be_normalised_unlike_each_other(tmp_path):
    one, other = (NetworkSpec(backbone=f"mobilenetv3_large_100.{tag}") for tag in ("ra_in1k", "miil_in21k_ft_in1k"))
    trained(tmp_path, backbone=one.backbone)
    weights = resolve(asked(tmp_path, backbone=other.backbone))
    with pytest.raises(WeightsError, match=r"model\.backbone: .* normalised in another way; got .*miil.*; expected .*ra_in1k"):
        load_into(create_network(other, 3), weights, other)


@pytest.mark.parametrize("changes", [{"channels": 1}, {"stages": 2}, {"activation": "relu"}])
def test_a_whole_rgb_run_may_be_changed_like_any_pretrained_network(tmp_path, changes):
    trained(tmp_path)
    spec = NetworkSpec(backbone=BACKBONE, **changes)
    network = create_network(spec, 3)
    load_into(network, resolve(asked(tmp_path)), spec)
    torch.manual_seed(0)
    donor = create_network(NetworkSpec(backbone=BACKBONE), 3)
    assert torch.equal(network.bn1.weight, donor.bn1.weight)
    assert torch.equal(network.blocks[1][0].conv_exp.weight, donor.blocks[1][0].conv_exp.weight)
