"""The linear probe: it separates what can be separated, and the head that it writes is the one that it fitted."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from edgetune.device.heads import Head, default_heads
from edgetune.errors import Interrupted
from edgetune.progress import Silent
from edgetune.train import probe
from edgetune.train.network import NetworkSpec, create_network, forward_features, head_of, normalisation
from edgetune.train.objective import Objective
from edgetune.train.probe import extract_features, fit_probe

FEATURES, CLASSES = 24, 4
HEADS = default_heads(["a", "b", "c", "d"])
SPEC = NetworkSpec(backbone="test_efficientnet")


class HeadOnly(nn.Module):
    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.fc = head or nn.Linear(FEATURES, CLASSES)

    def get_classifier(self) -> nn.Module:
        return self.fc


def clouds(count: int, seed: int, *, offset: float = 30.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Separable clouds, far from the origin, with four features that never fire; and which cloud each is of, `[count, 1]`."""
    centres = np.random.default_rng(0).normal(0, 3, (CLASSES, FEATURES))
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    features = centres[labels] + random.normal(0, 0.5, (count, FEATURES)) + offset
    features[:, :4] = 0
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels.astype(np.float32))[:, None]


def fit(network: nn.Module, train=None, val=None, *, heads=HEADS, iterations: int = 60, smoothing: float = 0.1):
    train, val = train or clouds(200, 1), val or clouds(80, 2)
    objective = Objective(heads, {}, train[1].numpy(), label_smoothing=smoothing)
    return fit_probe(network, objective, train, (val[0], val[1].numpy()), iterations=iterations), objective


def test_separates_what_is_separable_and_says_what_the_head_does():
    network = HeadOnly()
    result, _ = fit(network)
    features, targets = clouds(80, 2)
    logits, labels = network.fc(features), targets[:, 0].long()
    # The centring is folded into the layer: on raw features it gives what the fit saw.
    assert 100.0 * (logits.argmax(1) == labels).double().mean().item() == result.scores.metrics["top-1 %"] == 100.0
    assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(result.scores.loss, abs=1e-5)


def test_dead_features_get_no_weight():
    network = HeadOnly()
    fit(network)
    assert network.fc.weight[:, :4].abs().max() < 1e-6
    assert network.fc.weight.abs().max() < 1


def test_features_that_are_all_dead_leave_a_head_of_numbers():
    network = HeadOnly()
    dead = torch.zeros(40, FEATURES), (torch.arange(40) % CLASSES).float()[:, None]
    result, _ = fit(network, dead, dead, iterations=20)
    assert torch.isfinite(network.fc.weight).all()
    assert torch.isfinite(network.fc.bias).all()
    assert result.scores.loss == pytest.approx(np.log(CLASSES), abs=1e-3)


def test_fits_the_same_twice():
    one, two = HeadOnly(), HeadOnly()
    assert fit(one)[0] == fit(two)[0]
    assert torch.equal(one.fc.weight, two.fc.weight)


def test_the_penalty_that_validates_best_is_chosen():
    """Where features tell nothing of the labels, the strongest penalty; where they tell all, the weakest."""
    random = torch.Generator().manual_seed(0)

    def noise(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(count, FEATURES, generator=random), torch.randint(4, (count, 1), generator=random).float()

    assert fit(HeadOnly(), noise(60), noise(400), smoothing=0.0)[0].penalty == max(probe.STRONGER)
    assert fit(HeadOnly(), smoothing=0.0)[0].penalty == min(probe.PENALTIES)


def test_the_penalty_is_refined_around_the_best_in_two_scales_and_no_tried_one_validates_better(monkeypatch):
    """Clouds that overlap: neither the strongest nor the weakest penalty is the best."""
    tried: list[tuple[bool, float, float]] = []

    def overlapping(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        features, targets = clouds(count, seed)
        return features + torch.randn(features.shape, generator=torch.Generator().manual_seed(seed)) * 6, targets

    train, val = overlapping(60, 1), overlapping(400, 2)
    objective = Objective(HEADS, {}, train[1].numpy(), label_smoothing=0.1)
    mean, scales, original = train[0].mean(dim=0), probe._scales(train[0]), probe._fitted

    def noted(start, objective, features, targets, penalty, iterations):
        head = original(start, objective, features, targets, penalty, iterations)
        alike = torch.equal(features, (train[0] - mean) / scales[0])
        scaled = (val[0] - mean) / scales[0 if alike else 1]
        tried.append((alike, penalty, objective.scores(head(scaled).detach(), val[1].numpy()).loss))
        return head

    monkeypatch.setattr(probe, "_fitted", noted)
    result = fit_probe(HeadOnly(), objective, train, (val[0], val[1].numpy()), iterations=60)
    coarse = {penalty: loss for alike, penalty, loss in tried if alike and penalty in (*probe.PENALTIES, *probe.STRONGER)}
    middle = min(coarse, key=coarse.__getitem__)
    around = {middle / probe.HALF_WAY, middle * probe.HALF_WAY}
    assert around <= {penalty for alike, penalty, _ in tried if alike}
    assert {middle, *around} == {penalty for alike, penalty, _ in tried if not alike}
    _, penalty, loss = min(tried, key=lambda one: one[2])
    assert result.scores.loss == pytest.approx(loss, abs=1e-4)
    assert result.penalty == penalty


def test_a_quiet_feature_that_tells_all_is_not_lost_in_loud_noise():
    """One feature is a thousandth as loud as the others, and alone knows the label."""
    random = torch.Generator().manual_seed(3)
    labels = torch.randint(CLASSES, (1200, 1), generator=random).float()
    features = torch.randn(1200, FEATURES, generator=random) * 10
    features[:, :1] = (labels - 1.5) * 0.1
    result, _ = fit(HeadOnly(), (features[:600], labels[:600]), (features[600:], labels[600:]), smoothing=0.0)
    assert result.scores.score > 60


def test_hidden_layers_learn_what_one_layer_cannot():
    """Opposite corners of a square are of one class."""
    random = torch.Generator().manual_seed(0)
    features = (torch.rand(400, FEATURES, generator=random) * 2 - 1) * torch.tensor([1.0] * 2 + [0.1] * (FEATURES - 2)) + 5
    targets = ((features[:, :1] > 5) ^ (features[:, 1:2] > 5)).float()
    parts = (features[:300], targets[:300]), (features[300:], targets[300:])
    heads = default_heads(["same", "other"])
    flat = fit(HeadOnly(nn.Linear(FEATURES, 2)), *parts, heads=heads)[0].scores.score
    torch.manual_seed(0)
    layers = OrderedDict(hidden1=nn.Linear(FEATURES, 32), act1=nn.ReLU(), drop1=nn.Dropout(0.5), logits=nn.Linear(32, 2))
    network = HeadOnly(nn.Sequential(layers))
    deep, objective = fit(network, *parts, heads=heads)
    assert flat < 65
    assert deep.scores.score > 80
    logits = network.fc.eval()(parts[1][0])
    assert objective.scores(logits.detach(), parts[1][1].numpy()) == deep.scores


def test_several_heads_and_missing_targets():
    """A value in its own units, a label that is known of half the images, and a row of which nothing is known."""
    (features, clusters), heads = (
        clouds(200, 1),
        (HEADS[0], Head("far", "multi-label", ("x", "y")), Head("at", "regression", ("at",))),
    )
    labels = torch.cat([clusters == 1, clusters > 1], dim=1).float()
    labels[::2, 1] = float("nan")
    targets = torch.cat([clusters, labels, 1000 + 3 * clusters], dim=1)
    targets[7] = float("nan")
    network = HeadOnly(nn.Linear(FEATURES, 7))
    parts = (features[:150], targets[:150]), (features[150:], targets[150:])
    result, objective = fit(network, *parts, heads=heads)
    assert result.scores.metrics["label: top-1 %"] == result.scores.metrics["far: mAP %"] == 100
    assert result.scores.metrics["at: MAE"] < 0.5
    # A row without targets has no effect on what is learnt, but that its features are counted in their scale.
    at = objective.in_units(network.fc(parts[1][0]))[:, 6]
    assert (at - parts[1][1][:, 3]).abs().mean() < 0.5


def test_features_are_those_of_each_image_in_order(monkeypatch):
    monkeypatch.setattr(probe, "BATCH_SIZE", 3)
    network = create_network(SPEC, 3).eval()
    normalise = normalisation(SPEC)
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    features = extract_features(network, normalise, images, device=torch.device("cpu"), progress=Silent(), label="x")
    assert features.shape == (7, head_of(network).in_features)
    with torch.inference_mode():
        alone = forward_features(network, normalise(torch.from_numpy(images[5:6]).permute(0, 3, 1, 2) / 255))
    assert torch.allclose(features[5:6], alone, atol=1e-5)


def test_is_interrupted_between_batches(monkeypatch):
    monkeypatch.setattr(probe, "BATCH_SIZE", 3)
    network = create_network(SPEC, 3)
    images = np.zeros((7, 32, 32, 3), np.uint8)
    asked = iter([False, True])
    with pytest.raises(Interrupted, match="interrupted at the features"):
        extract_features(
            network, normalisation(SPEC), images, device=torch.device("cpu"), progress=Silent(),
            label="features", stop=lambda: next(asked),
        )  # fmt: skip
    assert next(asked, None) is None
