"""The ends of a network: hidden layers, other channels than RGB, fewer stages; each with its weights, and all as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgetune.errors import WeightsError
from edgetune.export.rewrite import shape_operators
from edgetune.export.trace import deployable, trace
from edgetune.rewrites.simplify import simplify
from edgetune.train.network import (
    NetworkSpec,
    create_network,
    forward_features,
    head_modules,
    head_of,
    layer_groups,
    normalisation,
    third_groups,
)
from edgetune.train.weights import load_into

from .ends import SIZE, asked, images, settled, stored

# One of each way in which timm keeps stages, stem and classifier.
CUT = (
    "test_efficientnet",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_050",
    "tf_efficientnet_lite0",
    "resnet10t",
    "regnetx_002",
    "test_byobnet",
    "ghostnet_100",
)


def macs(spec: NetworkSpec) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one image."""
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    network = create_network(spec, 3).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(images()[:1])
    return total


# --- the head


@pytest.mark.parametrize("backbone", ["test_efficientnet", "mobilenetv3_small_050", "regnetx_002", "resnet10t", "test_vit"])
def test_hidden_layers_stand_between_the_features_and_the_logits(backbone):
    spec = asked(backbone, hidden=(12, 5), drop_rate=0.25)
    network = create_network(spec, 3).eval()
    head = head_modules(network)
    assert [type(module) for module in head] == [nn.Linear, nn.ReLU, nn.Dropout] * 2 + [nn.Linear]
    assert head[2].p == 0.25
    assert head_of(network) is head.logits
    assert (head_of(network).in_features, head_of(network).out_features) == (5, 3)
    own = {name for name, tensor in network.named_parameters() if any(tensor is mine for mine in head.parameters())}
    assert {name.split(".", name.count(".") - 1)[-1] for name in own} == {
        f"{layer}.{kind}" for layer in ("hidden1", "hidden2", "logits") for kind in ("weight", "bias")
    }
    with torch.inference_mode():
        features = forward_features(network, images())
        assert features.shape == (2, head.hidden1.in_features)
        assert torch.allclose(head(features), network(images()), atol=1e-6)
    assert own <= {name for name, _ in layer_groups(network)[-1]}
    assert own == {name for name, _ in third_groups(network)[3]}


def test_hidden_layers_get_no_pretrained_weights_and_the_backbone_all(tmp_path):
    spec = asked("test_efficientnet", hidden=(12,))
    donor, network = create_network(NetworkSpec(backbone="test_efficientnet"), 9), create_network(spec, 3)
    before = {name: tensor.clone() for name, tensor in head_modules(network).state_dict().items()}
    load_into(network, stored(donor, tmp_path), spec)
    assert all(torch.equal(tensor, before[name]) for name, tensor in head_modules(network).state_dict().items())
    tensors = donor.state_dict()
    for name, tensor in network.state_dict().items():
        assert name.startswith("classifier.") or torch.equal(tensor, tensors[name]), name


# --- the input


def grey_and_rgb(backbone: str, folder: Path) -> tuple[nn.Module, nn.Module]:
    spec = asked(backbone, channels=1)
    donor = settled(create_network(replace(spec, channels=3), 3))
    network = create_network(spec, 3).eval()
    load_into(network, stored(donor, folder), spec)
    return network, donor


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "test_vit", "resnet10t", "regnetx_002", "mobileone_s0"])
def test_a_grey_network_does_on_grey_what_the_rgb_one_does(backbone, tmp_path):
    network, donor = grey_and_rgb(backbone, tmp_path)
    # Of normalised images: there the identity is exact but for rounding, whatever the colours' means are.
    with torch.inference_mode():
        grey = torch.randn((2, 1, SIZE, SIZE))
        one, three = forward_features(network, grey), forward_features(donor, grey.expand(-1, 3, -1, -1))
    assert torch.allclose(one, three, rtol=1e-4, atol=1e-4 * float(three.abs().max()))


def test_from_pixels_on_the_grey_network_is_equal_where_the_colours_are_normalised_alike(tmp_path):
    network, donor = grey_and_rgb("tf_efficientnet_lite0", tmp_path)
    with torch.inference_mode():
        one = forward_features(network, normalisation(NetworkSpec(backbone="tf_efficientnet_lite0", channels=1))(images(1)))
        rgb = normalisation(NetworkSpec(backbone="tf_efficientnet_lite0"))(images(1).expand(-1, 3, -1, -1))
        three = forward_features(donor, rgb)
    assert torch.allclose(one, three, rtol=1e-4, atol=1e-4 * float(three.abs().max()))


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_more_channels_repeat_the_colours_kernels_and_keep_their_sum(channels, tmp_path):
    donor = settled(create_network(NetworkSpec(backbone="resnet10t"), 3))
    spec = asked("resnet10t", channels=channels)
    network = create_network(spec, 3).eval()
    load_into(network, stored(donor, tmp_path), spec)
    kernel, rgb = network.state_dict()["conv1.0.weight"], donor.state_dict()["conv1.0.weight"]
    for number in range(channels):
        assert torch.allclose(kernel[:, number], rgb[:, number % 3] * 3 / channels)
    if channels == 6:  # Each colour twice: what the RGB network computes.
        colours = images()
        with torch.inference_mode():
            six, three = forward_features(network, torch.cat([colours, colours], dim=1)), forward_features(donor, colours)
        assert torch.allclose(six, three, rtol=1e-4, atol=1e-4 * float(three.abs().max()))


def test_weights_of_other_channels_than_rgb_are_no_start(tmp_path):
    donor = create_network(NetworkSpec(backbone="resnet10t", channels=5), 3)
    spec = NetworkSpec(backbone="resnet10t", channels=4)
    with pytest.raises(WeightsError, match=r"conv1\.0\.weight: has another shape"):
        load_into(create_network(spec, 3), stored(donor, tmp_path), spec)


# --- fewer stages


@pytest.mark.parametrize("backbone", CUT)
def test_fewer_stages_cost_less_and_keep_their_weights(backbone, tmp_path):
    donor = settled(create_network(NetworkSpec(backbone=backbone), 7))
    costs, widths = [macs(NetworkSpec(backbone=backbone))], []
    for stages in (3, 2, 1):
        spec = asked(backbone, stages=stages)
        network = create_network(spec, 3).eval()
        load_into(network, stored(donor, tmp_path), spec)
        groups = layer_groups(network)
        # Stem, stages, head: nothing of what was between the last stage and the head is left.
        assert len(groups) == stages + 2
        assert {name for name, _ in groups[-1]} == {name for name, _ in third_groups(network)[3]}
        with torch.inference_mode():
            features = forward_features(network, images())
            assert torch.allclose(head_of(network)(features), network(images()), atol=1e-6)
            assert torch.allclose(features, upto(donor, backbone, stages), atol=1e-5)
        assert network.num_features == head_of(network).in_features == features.shape[1]
        costs.append(macs(spec))
        widths.append(features.shape[1])
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.6 * costs[0]
    assert widths == sorted(widths, reverse=True)


def upto(donor: nn.Module, backbone: str, stages: int) -> torch.Tensor:
    """The pooled output of a whole network's stage, caught on its way."""
    caught: list[torch.Tensor] = []
    last = {"resnet10t": f"layer{stages}", "regnetx_002": f"s{stages}", "test_byobnet": f"stages.{stages - 1}"}
    module = donor.get_submodule(last.get(backbone, f"blocks.{stages - 1}"))
    # A later activation may work in place.
    handle = module.register_forward_hook(lambda _, __, output: caught.append(output.clone()))
    donor(images())
    handle.remove()
    return caught[0].mean((2, 3))


def test_all_stages_by_number_are_the_whole_network():
    whole, counted = (create_network(asked("mobilenetv3_small_050", **kw), 3) for kw in ({}, {"stages": 6}))
    assert whole.state_dict().keys() == counted.state_dict().keys()


@pytest.mark.parametrize(
    ("backbone", "stages", "message"),
    [
        ("resnet10t", 5, r"model\.stages: the backbone has 4 stages, not 5 \(give a number from 1 to 4, or all\)"),
        ("test_vit", 2, r"model\.stages: the stages of a VisionTransformer cannot be cut off"),
        ("test_convnext", 2, r"model\.stages: the stages of a ConvNeXt cannot be cut off"),
    ],
)
def test_stages_that_cannot_be_cut(backbone, stages, message):
    with pytest.raises(WeightsError, match=message):
        asked(backbone, stages=stages)


def test_the_file_of_a_cut_network_may_not_hold_anything_else(tmp_path):
    donor = create_network(NetworkSpec(backbone="test_efficientnet"), 3)
    donor.extra = nn.Linear(1, 1)
    spec = asked("test_efficientnet", stages=2)
    with pytest.raises(WeightsError, match=r"extra\.weight: is in the file, but not in the network") as caught:
        load_into(create_network(spec, 3), stored(donor, tmp_path), spec)
    assert len(caught.value.faults) == 2  # The weight and the bias; none for the stages that were cut off.


# --- all of them, as a file


@pytest.mark.parametrize(
    ("backbone", "channels", "changes"),
    [
        ("test_efficientnet", 1, {"hidden": (8,), "activation": "relu"}),
        ("mobilenetv3_small_050", 3, {"stages": 1}),
        ("resnet10t", 3, {"stages": 2, "hidden": (8,)}),
        ("regnetx_002", 4, {"stages": 1, "hidden": (8, 4)}),
    ],
)
def test_variants_are_exported_without_arithmetic_on_shapes(backbone, channels, changes):
    spec = asked(backbone, channels=channels, **changes)
    network, normalise = settled(create_network(spec, 3)), normalisation(spec)
    module = deployable(network, normalise.mean, normalise.std)
    model = trace(module, SIZE, SIZE, channels)
    model, _ = simplify(model)
    assert shape_operators(model.graph) == []
    assert not {"Reshape", "Dropout"} & {node.op_type for node in model.graph.node}
    from onnxruntime import InferenceSession

    pixels = torch.randint(0, 256, (2, SIZE, SIZE, channels), dtype=torch.uint8)
    [logits] = InferenceSession(model.SerializeToString()).run(None, {"image": pixels.numpy()})
    with torch.inference_mode():
        expected = network(normalise(pixels.permute(0, 3, 1, 2).float() / 255))
    assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-3 * float(expected.abs().max()))
