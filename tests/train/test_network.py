"""What training must know of any backbone: its head, what its head sees, its stages, its options."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch
from torch import nn

from edgetune.errors import ArtefactError, WeightsError
from edgetune.recipe import ModelRecipe, Recipe
from edgetune.train.described import network_spec
from edgetune.train.network import (
    NetworkSpec,
    create_network,
    forward_features,
    head_of,
    layer_groups,
    normalisation,
    require_known,
    third_groups,
)
from edgetune.train.schedule import auto_epochs, lr_factor
from edgetune.train.strategy import Strategy

FAMILIES = (
    "test_byobnet",
    "test_convnext",
    "test_efficientnet",
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_050",
    "regnety_004",
)
WITHOUT_STAGES = "poolformer_s12"
RECIPE = Recipe().train


def plain(backbone: str, outputs: int = 3) -> nn.Module:
    return create_network(NetworkSpec(backbone=backbone), outputs)


def options(model: ModelRecipe, image_size: int) -> dict[str, object]:
    return network_spec(model, image_size=image_size, channels=3, functions="any").options


@pytest.fixture(params=FAMILIES)
def network(request):
    return plain(request.param).eval()


def test_the_head_on_the_features_is_the_network(network):
    images = torch.randn(2, 3, network.pretrained_cfg["input_size"][-1], network.pretrained_cfg["input_size"][-1])
    with torch.inference_mode():
        features = forward_features(network, images)
        assert features.shape == (2, head_of(network).in_features)
        assert torch.allclose(head_of(network)(features), network(images), atol=1e-5)


def test_groups_hold_every_parameter_once_and_end_with_the_head(network):
    groups = layer_groups(network)
    names = [name for group in groups for name, _ in group]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    assert len(groups) >= 3
    head = {id(parameter) for parameter in head_of(network).parameters()}
    assert head <= {id(parameter) for _, parameter in groups[-1]}
    assert next(iter(network.named_parameters()))[0] in [name for name, _ in groups[0]]


def test_thirds_hold_every_parameter_once_in_order_and_are_about_alike(network):
    groups = third_groups(network)
    names = [name for group in groups for name, _ in group]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    assert {id(parameter) for _, parameter in groups[3]} == {id(parameter) for parameter in head_of(network).parameters()}
    by_stage = [name for group in layer_groups(network) for name, _ in group]
    assert [by_stage.index(group[0][0]) for group in groups] == sorted(by_stage.index(group[0][0]) for group in groups)
    layers = [sum(parameter.ndim > 1 for _, parameter in group) for group in groups[:3]]
    # No block is cut in two, and the largest here has six layers.
    assert all(abs(count - sum(layers) / 3) <= 6 for count in layers)
    assert min(layers) > 0


def check_parameter_groups(network: nn.Module) -> list[float]:
    groups = Strategy(network, RECIPE).parameter_groups()
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in network.parameters())
    rates = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    head = {id(parameter) for parameter in head_of(network).parameters()}
    assert {rates[parameter] for parameter in head} == {RECIPE.lr}
    by_stage = [{rates[id(p)] for _, p in group if id(p) not in head} for group in layer_groups(network)]
    by_stage = [stage for stage in by_stage if stage]
    assert all(len(stage) == 1 for stage in by_stage)
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        assert decays[id(parameter)] == (0 if parameter.ndim == 1 or name.endswith(".bias") else RECIPE.weight_decay), name
    return [stage.pop() for stage in by_stage]


def test_rates_fall_from_the_head_to_the_stem_and_norms_do_not_decay(network):
    rates = check_parameter_groups(network)
    assert rates[-1] == pytest.approx(RECIPE.lr * RECIPE.layer_decay)
    for lower, upper in itertools.pairwise(rates):
        assert lower == pytest.approx(upper * RECIPE.layer_decay)


def test_a_backbone_without_stages_learns_at_two_rates():
    with torch.device("meta"):
        network = plain(WITHOUT_STAGES)
    assert not hasattr(network, "group_matcher")
    assert check_parameter_groups(network) == [RECIPE.lr * RECIPE.layer_decay]


def test_an_unknown_backbone_gets_the_nearest_names():
    with pytest.raises(WeightsError, match=r"got 'mobilnetv3_smal_100' \(did you mean .*'mobilenetv3_small_100'"):
        require_known("mobilnetv3_smal_100")
    with pytest.raises(WeightsError, match="see `edgetune backbones`"):
        require_known("no such thing at all")
    with pytest.raises(WeightsError, match=r"resnet18 under this tag; got 'foo'\n.*a1_in1k"):
        require_known("resnet18.foo")
    require_known("resnet18")
    require_known("resnet18.a1_in1k")


def test_a_head_that_is_not_one_linear_layer_is_refused():
    with pytest.raises(WeightsError, match="tuple, not a linear layer"):
        head_of(plain("levit_128s"))


def test_options_are_those_that_the_backbone_has():
    assert options(ModelRecipe(backbone="test_resnet"), 96) == {"drop_rate": 0.1, "drop_path_rate": 0.0}
    assert options(ModelRecipe(backbone="ghostnet_100"), 96) == {"drop_rate": 0.1}
    assert options(ModelRecipe(backbone="test_vit"), 96)["img_size"] == 96
    assert "img_size" not in options(ModelRecipe(backbone="test_vit"), 160)


def test_what_the_backbone_has_not_is_refused_all_at_once():
    model = ModelRecipe(backbone="levit_128s", drop_path_rate=0.1, stages=2, hidden=(8,))
    with pytest.raises(WeightsError) as caught:
        network_spec(model, image_size=96, channels=1, functions="any")
    assert [fault.where for fault in caught.value.faults] == [
        "model.drop_rate",
        "model.drop_path_rate",
        "data.image_size",
        "data.channels",
        "model.backbone",
        "model.stages",
    ]
    assert "data.image_size: levit_128s takes images of one size only; got 96; expected 224" in str(caught.value)
    with pytest.raises(WeightsError, match=r"model.drop_path_rate: ghostnet_100 has no such option; got 0.1; expected 0"):
        options(ModelRecipe(backbone="ghostnet_100", drop_path_rate=0.1), 96)


def test_an_image_that_the_backbone_cannot_take_is_refused_before_it_trains():
    with pytest.raises(WeightsError, match=r"data.image_size: test_vit does not take such images \(.*; got 4"):
        options(ModelRecipe(backbone="test_vit"), 4)


def test_asking_for_a_network_draws_nothing():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    network_spec(ModelRecipe(backbone="test_efficientnet"), image_size=64, channels=3, functions="any")
    assert torch.equal(torch.rand(1), expected)


def test_normalisation_is_the_backbones():
    lite = normalisation(NetworkSpec(backbone="tf_efficientnet_lite0"))
    assert lite.mean == lite.std == (0.5, 0.5, 0.5)
    assert lite(torch.ones(1, 3, 2, 2)).unique().tolist() == [1.0]
    assert normalisation(NetworkSpec(backbone="resnet18")).std == (0.229, 0.224, 0.225)


def test_normalisation_of_other_channels_follows_the_kernels():
    grey = normalisation(NetworkSpec(backbone="resnet18", channels=1))
    assert grey.mean == pytest.approx((0.449,), abs=1e-12)
    five = normalisation(NetworkSpec(backbone="resnet18", channels=5))
    assert five.mean == (0.485, 0.456, 0.406, 0.485, 0.456)
    assert five(torch.ones(2, 5, 3, 3)).shape == (2, 5, 3, 3)


def test_the_spec_goes_round_and_builds_the_same_network():
    model = ModelRecipe(backbone="test_efficientnet", hidden=(8, 4), stages=2, activation="relu", drop_rate=0.2)
    spec = network_spec(model, image_size=64, channels=4, functions="any")
    stored = json.loads(json.dumps(spec.to_json()))
    assert NetworkSpec.from_json(stored) == spec
    first, second = (create_network(each, 5).state_dict() for each in (spec, NetworkSpec.from_json(stored)))
    assert {name: tensor.shape for name, tensor in first.items()} == {name: tensor.shape for name, tensor in second.items()}
    words = "4 input channels, 2 stages, hidden layers of 8, 4, 3 activations exchanged for relu"
    assert spec.in_words() == words
    assert NetworkSpec(backbone="resnet18").in_words() == ""


def test_an_enlarging_network_is_the_plain_one_on_enlarged_images():
    model = ModelRecipe(backbone="test_efficientnet", enlarge_to=96)
    spec = network_spec(model, image_size=64, channels=3, functions="any")
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert spec.in_words() == "images enlarged to 96 px"
    network, plain = create_network(spec, 5).eval(), create_network(NetworkSpec(backbone="test_efficientnet"), 5).eval()
    plain.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 64, 64)
    enlarged = torch.nn.functional.interpolate(images, size=(96, 96), mode="bilinear", align_corners=False)
    with torch.no_grad():
        assert torch.equal(network(images), plain(enlarged))
        assert torch.equal(copy.deepcopy(network)(images), plain(enlarged))
        assert not torch.allclose(plain(images), plain(enlarged))


def test_an_image_is_not_made_smaller():
    with pytest.raises(WeightsError) as caught:
        network_spec(ModelRecipe(backbone="test_efficientnet", enlarge_to=48), image_size=64, channels=3, functions="any")
    assert [str(fault) for fault in caught.value.faults] == [
        "model.enlarge_to: images of 64 px are not enlarged by this; got 48; expected leave it out"
    ]


def test_a_spec_of_before_enlarging_is_read():
    content = NetworkSpec(backbone="resnet18").to_json()
    del content["enlarge_to"]
    assert NetworkSpec.from_json(content) == NetworkSpec(backbone="resnet18")


def test_a_spec_of_another_version_is_refused_with_all_that_is_unlike():
    content = NetworkSpec(backbone="resnet18").to_json() | {"new": 1}
    del content["hidden"]
    with pytest.raises(ArtefactError) as caught:
        NetworkSpec.from_json(content)
    assert [str(fault) for fault in caught.value.faults] == ["hidden: is missing", "new: is not known"]


@pytest.mark.parametrize(("images", "epochs"), [(1, 30), (140, 30), (1_250, 10), (5_300, 5), (1_000_000, 3)])
def test_more_images_need_fewer_epochs(images, epochs):
    assert auto_epochs(images) == epochs


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.1), (7, 0.0), (3, 0.9), (1, 0.5)])
def test_the_rate_rises_then_falls(total, warmup):
    recipe = RECIPE.model_copy(update={"warmup_fraction": warmup})
    factors = [lr_factor(step, total, recipe) for step in range(total)]
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert all(0.01 <= factor <= 1 for factor in factors)
    assert peak <= warmup * total + 1
