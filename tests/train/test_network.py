"""What training must know of any backbone: its head, what its head sees, its stages, its options."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from edgetune.errors import WeightsError
from edgetune.recipe import ModelRecipe, Recipe
from edgetune.train.network import (
    create_network,
    forward_features,
    head_of,
    layer_groups,
    model_options,
    normalisation,
    require_known,
)
from edgetune.train.schedule import auto_epochs, lr_factor, parameter_groups

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


@pytest.fixture(params=FAMILIES)
def network(request):
    return create_network(request.param, 3, {}).eval()


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


def check_parameter_groups(network: nn.Module) -> list[float]:
    groups = parameter_groups(network, RECIPE)
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in network.parameters())
    rates = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    by_stage = [{rates[id(p)] for _, p in group} for group in layer_groups(network)]
    assert all(len(stage) == 1 for stage in by_stage)
    assert rates[id(head_of(network).weight)] == rates[id(head_of(network).bias)] == RECIPE.lr
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        assert decays[id(parameter)] == (0 if parameter.ndim == 1 or name.endswith(".bias") else RECIPE.weight_decay), name
    return [stage.pop() for stage in by_stage]


def test_rates_fall_from_the_head_to_the_stem_and_norms_do_not_decay(network):
    rates = check_parameter_groups(network)
    assert rates[-1] == RECIPE.lr
    for lower, upper in itertools.pairwise(rates):
        assert lower == pytest.approx(upper * RECIPE.layer_decay)


def test_a_backbone_without_stages_learns_at_two_rates():
    with torch.device("meta"):
        network = create_network(WITHOUT_STAGES, 3, {})
    assert not hasattr(network, "group_matcher")
    assert check_parameter_groups(network) == [RECIPE.lr * RECIPE.layer_decay, RECIPE.lr]


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
        head_of(create_network("levit_128s", 3, {}))


def test_options_are_those_that_the_backbone_has():
    assert model_options("test_resnet", ModelRecipe(), 96) == {"drop_rate": 0.1, "drop_path_rate": 0.0}
    assert model_options("ghostnet_100", ModelRecipe(), 96) == {"drop_rate": 0.1}
    assert model_options("test_vit", ModelRecipe(), 96)["img_size"] == 96
    assert "img_size" not in model_options("test_vit", ModelRecipe(), 160)


def test_options_that_the_backbone_has_not_are_refused_all_at_once():
    with pytest.raises(WeightsError) as caught:
        model_options("levit_128s", ModelRecipe(drop_path_rate=0.1), 96)
    assert "data.image_size: levit_128s takes images of one size only; got 96; expected 224" in str(caught.value)
    with pytest.raises(WeightsError, match=r"model.drop_path_rate: ghostnet_100 has no such option; got 0.1; expected 0"):
        model_options("ghostnet_100", ModelRecipe(drop_path_rate=0.1), 96)


def test_normalisation_is_the_backbones():
    lite = normalisation("tf_efficientnet_lite0")
    assert lite.mean == lite.std == (0.5, 0.5, 0.5)
    assert lite(torch.ones(1, 3, 2, 2)).unique().tolist() == [1.0]
    assert normalisation("resnet18").std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(("images", "epochs"), [(1, 30), (140, 30), (1_250, 10), (5_300, 5), (1_000_000, 3)])
def test_more_images_need_fewer_epochs(images, epochs):
    assert auto_epochs(images) == epochs


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.1), (7, 0.0), (3, 0.9), (1, 0.5)])
def test_the_rate_rises_then_falls(total, warmup):
    factors = [lr_factor(step, total, warmup) for step in range(total)]
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert all(0.01 <= factor <= 1 for factor in factors)
    assert peak <= warmup * total + 1
