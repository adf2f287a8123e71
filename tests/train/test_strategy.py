"""What learns, when and how fast; what does not learn keeps its bits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from edgetune.errors import UsageError
from edgetune.recipe import TrainRecipe
from edgetune.train.network import NetworkSpec, create_network
from edgetune.train.strategy import Anchor, Strategy, wants_probe

HEAD = {"classifier.weight", "classifier.bias"}
STAGES = 5


def network() -> nn.Module:
    return create_network(NetworkSpec(backbone="test_efficientnet"), 3)


def everything() -> set[str]:
    return {name for name, _ in network().named_parameters()}


def strategy(**recipe: Any) -> Strategy:
    return Strategy(network(), TrainRecipe(**recipe))


def below(*prefixes: str) -> set[str]:
    return {name for name in everything() if name.startswith(prefixes)}


@pytest.mark.parametrize("name", ["lp-ft", "full"])
def test_everything_learns(name: str) -> None:
    assert all(strategy(strategy=name).learning(epoch, 4) == everything() for epoch in range(4))


def test_a_linear_probe_learns_the_head() -> None:
    assert strategy(strategy="linear-probe").learning(0, 4) == HEAD


def test_norms_and_biases_learn_beside_the_head() -> None:
    learning = strategy(strategy="norm-and-bias").learning(0, 4)
    small = {name for name, parameter in network().named_parameters() if parameter.ndim == 1}
    assert learning == small | HEAD
    assert "blocks.3.0.se.conv_reduce.bias" in learning
    assert "blocks.3.0.se.conv_reduce.weight" not in learning


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_gradual_opens_from_the_top_and_ends_with_everything(epochs: int, fraction: float) -> None:
    chosen = strategy(strategy="gradual", gradual_fraction=fraction)
    sets = [chosen.learning(epoch, epochs) for epoch in range(epochs)]
    assert sets[-1] == everything()
    assert all(before <= after for before, after in itertools.pairwise(sets))
    for learning in sets:
        assert learning > HEAD
        # What learns is the top: no group is open above which one is closed.
        open_groups = [{name for name, _ in group} <= learning for group in chosen.stages]
        assert open_groups == sorted(open_groups)
    by = max(1, round(fraction * epochs))
    assert sets[by - 1] == everything()
    assert sets[0] == everything() if by == 1 else sets[0] < everything()


@pytest.mark.parametrize(
    ("freeze", "prefixes"),
    [
        ("stem", ("conv_stem", "bn1")),
        ("stages.0", ("blocks.0.",)),
        ("stages.0-2", ("blocks.0.", "blocks.1.", "blocks.2.")),
        # What lies between the last stage and the head is part of that stage.
        ("stem, stages.4", ("conv_stem", "bn1", "blocks.4.", "conv_head", "bn2")),
        ("blocks.3.*", ("blocks.3.",)),
        ("blocks.3", ("blocks.3.",)),
        ("conv_head.weight", ("conv_head.weight",)),
    ],
)
def test_parts_are_frozen_by_name(freeze: str, prefixes: tuple[str, ...]) -> None:
    for name in ("lp-ft", "norm-and-bias", "gradual"):
        plain, frozen = strategy(strategy=name), strategy(strategy=name, freeze=freeze)
        assert frozen.learning(3, 4) == plain.learning(3, 4) - below(*prefixes)


def test_every_pattern_that_names_nothing_is_said_at_once() -> None:
    with pytest.raises(UsageError, match="freezes what the network does not have") as caught:
        strategy(freeze="stages.5, stem, nothing.*, stages.2-1")
    text = str(caught.value)
    assert text.count("names no parameter") == 3
    assert "got 'stages.5'; expected stem, stages.0 to stages.4, or a pattern" in text


@pytest.mark.parametrize("recipe", [{"freeze": "*"}, {"strategy": "linear-probe", "freeze": "classifier"}])
def test_to_freeze_everything_is_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="leaves nothing to learn"):
        strategy(**recipe)


def test_applying_says_whether_anything_changed() -> None:
    chosen = strategy(strategy="gradual", gradual_fraction=1.0)
    assert [chosen.apply(epoch, 12) for epoch in (0, 0, 3, 11, 11)] == [True, False, True, True, False]
    assert all(parameter.requires_grad for parameter in chosen.network.parameters())


def test_resting_are_modules_whose_own_parameters_do_not_learn() -> None:
    chosen = strategy(freeze="stages.0, blocks.1.0.bn1.weight")
    chosen.apply(0, 1)
    names = {name for name, module in chosen.network.named_modules() if any(module is one for one in chosen.resting())}
    # Half of a norm learns, so it follows the images.
    assert names == {"blocks.0.0.conv", "blocks.0.0.bn1"}


def test_the_rate_falls_by_the_decay_per_group_below_the_head() -> None:
    chosen = strategy(lr=1.0, layer_decay=0.5)
    rates = {id(p): group["peak_lr"] for group in chosen.parameter_groups() for p in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in chosen.network.named_parameters()}
    assert len(rates) == len(found)
    assert found["classifier.weight"] == found["classifier.bias"] == 1
    assert found["conv_head.weight"] == found["blocks.4.0.conv_pw.weight"] == found["bn2.bias"] == 0.5
    assert [found[name] for name in sorted(below("blocks.2."))] == [0.5**3] * 6
    assert found["conv_stem.weight"] == 0.5**6


def test_thirds_are_three_rates_and_the_head() -> None:
    chosen = strategy(lr=1.0, layer_decay=0.1, layer_groups="thirds")
    groups = chosen.parameter_groups()
    found = {
        name: group["peak_lr"]
        for group in groups
        for name, p in chosen.network.named_parameters()
        if any(p is q for q in group["params"])
    }
    assert sorted(set(found.values()), reverse=True) == pytest.approx([1, 0.1, 0.01, 0.001])
    assert found["conv_stem.weight"] == pytest.approx(0.001)
    assert found["conv_head.weight"] == pytest.approx(0.1)
    layers = [
        sum(found[n] == rate for n, p in chosen.network.named_parameters() if p.ndim > 1)
        for rate in sorted(set(found.values()))
    ]
    assert max(layers[:3]) - min(layers[:3]) <= 5
    assert set(found) == everything()


@pytest.mark.parametrize(("l2_sp", "body_decay"), [(0.0, 0.05), (0.1, 0.0)])
def test_norms_and_biases_do_not_decay(l2_sp: float, body_decay: float) -> None:
    chosen = strategy(weight_decay=0.05, l2_sp=l2_sp)
    decays = {id(p): group["weight_decay"] for group in chosen.parameter_groups() for p in group["params"]}
    for name, parameter in chosen.network.named_parameters():
        expected = 0.0 if parameter.ndim == 1 else 0.05 if name in HEAD else body_decay
        assert decays[id(parameter)] == expected, name


def test_l2_sp_pulls_the_backbone_back_and_leaves_the_head_alone() -> None:
    chosen = strategy(lr=0.1, layer_decay=1.0, l2_sp=0.5)
    anchor = Anchor(chosen.stages, chosen.parameter_groups(), 0.5)
    origin = {name: parameter.detach().clone() for name, parameter in chosen.network.named_parameters()}
    chosen.network.conv_stem.weight.requires_grad_(False)
    with torch.no_grad():
        for parameter in chosen.network.parameters():
            parameter.add_(1.0)
    anchor.pull(0.8)
    share = 0.1 * 0.8 * 0.5
    for name, parameter in chosen.network.named_parameters():
        # What does not learn does not move.
        left = 1.0 if name in HEAD or name == "conv_stem.weight" else 1.0 - share
        assert torch.allclose(parameter - origin[name], torch.tensor(left), atol=1e-6), name
    for _ in range(500):
        anchor.pull(1.0)
    assert torch.allclose(chosen.network.conv_head.weight, origin["conv_head.weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "pretrained", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"strategy": "full"}, True, False),
        ({"strategy": "gradual"}, True, True),
        ({"strategy": "norm-and-bias"}, True, True),
        ({"probe_iterations": 0}, True, False),
        ({"strategy": "linear-probe"}, True, True),
        # Else nothing at all would learn.
        ({"strategy": "linear-probe"}, False, True),
    ],
)
def test_who_begins_with_a_linear_probe(recipe: dict[str, Any], pretrained: bool, wanted: bool) -> None:
    assert wants_probe(TrainRecipe(**recipe), pretrained=pretrained) == wanted


def test_a_linear_probe_of_no_iterations_is_refused() -> None:
    with pytest.raises(UsageError, match="learns nothing"):
        wants_probe(TrainRecipe(strategy="linear-probe", probe_iterations=0), pretrained=True)


@pytest.mark.parametrize("batch_norm", ["frozen", "adapt"])
@pytest.mark.parametrize(
    ("changes", "moving"),
    [
        ({"freeze": "stem,stages.0-2"}, ("blocks.3.", "blocks.4.", "conv_head", "bn2", "classifier")),
        ({"strategy": "norm-and-bias"}, ("bn", "classifier")),
        ({"strategy": "linear-probe"}, ("classifier",)),
        ({"strategy": "gradual", "gradual_fraction": 1.0, "epochs": 6}, ("blocks.4.", "conv_head", "bn2", "classifier")),
    ],
)
def test_what_is_frozen_keeps_its_bits(dataset, recipe, tuned, changes, moving, batch_norm) -> None:
    """Weights and buffers: the statistics of a batch norm belong to its weights."""
    tuning = tuned(dataset, recipe(**changes, batch_norm=batch_norm, weight_decay=0.1))
    before = {name: tensor.clone() for name, tensor in tuning.network.state_dict().items()}
    for batch in list(tuning.feed.stream(0, 0, 0))[:3]:
        tuning._train_step(batch)
    now, averaged = tuning.network.state_dict(), tuning.average.network.state_dict()
    learning = tuning.learner.strategy.learning(0, max(1, tuning.epochs))
    for name, tensor in before.items():
        statistics = "running" in name or "num_batches" in name
        follows = batch_norm == "adapt" and f"{name.rpartition('.')[0]}.weight" in learning
        moves = follows if statistics else name in learning
        assert torch.equal(now[name], tensor) != moves, name
        assert torch.equal(averaged[name], tensor) or moves, name
    assert {name for name in learning if not any(part in name for part in moving)} <= below("blocks.3.0.se", "blocks.4.0.se")
