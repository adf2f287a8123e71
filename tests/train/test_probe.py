"""The linear probe: it separates what can be separated, and the head that it writes is the one that it fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgetune.errors import Interrupted
from edgetune.progress import Silent
from edgetune.train.network import create_network, forward_features, head_of, normalisation
from edgetune.train.probe import extract_features, fit_probe

FEATURES, CLASSES = 24, 4


class HeadOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(FEATURES, CLASSES)

    def get_classifier(self) -> nn.Linear:
        return self.fc


def clouds(count: int, seed: int, *, offset: float = 30.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Separable clouds, far from the origin, with four features that never fire."""
    centres = np.random.default_rng(0).normal(0, 3, (CLASSES, FEATURES))
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    features = centres[labels] + random.normal(0, 0.5, (count, FEATURES)) + offset
    features[:, :4] = 0
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


def fit(network: nn.Module, **changes: float):
    return fit_probe(network, clouds(200, 1), clouds(80, 2), **{"iterations": 60, "label_smoothing": 0.1} | changes)


def test_separates_what_is_separable_and_says_what_the_head_does():
    network = HeadOnly()
    result = fit(network)
    features, labels = clouds(80, 2)
    logits = network.fc(features)
    # The centring is folded into the layer: on raw features it gives what the fit saw.
    assert 100.0 * (logits.argmax(1) == labels).double().mean().item() == result.val_top1_percent == 100.0
    assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(result.val_loss, abs=1e-5)


def test_dead_features_get_no_weight():
    network = HeadOnly()
    fit(network)
    assert network.fc.weight[:, :4].abs().max() < 1e-6
    assert network.fc.weight.abs().max() < 1


def test_features_that_are_all_dead_leave_a_head_of_numbers():
    network = HeadOnly()
    dead = torch.zeros(40, FEATURES), torch.arange(40) % CLASSES
    result = fit_probe(network, dead, dead, iterations=20, label_smoothing=0.1)
    assert torch.isfinite(network.fc.weight).all()
    assert torch.isfinite(network.fc.bias).all()
    assert result.val_loss == pytest.approx(np.log(CLASSES), abs=1e-3)


def test_fits_the_same_twice():
    one, two = HeadOnly(), HeadOnly()
    assert fit(one) == fit(two)
    assert torch.equal(one.fc.weight, two.fc.weight)


def test_features_are_those_of_each_image_in_order():
    network = create_network("test_efficientnet", 3, {}).eval()
    normalise = normalisation("test_efficientnet")
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    features = extract_features(
        network, normalise, images, device=torch.device("cpu"), progress=Silent(), label="x", batch_size=3
    )
    assert features.shape == (7, head_of(network).in_features)
    with torch.inference_mode():
        alone = forward_features(network, normalise(torch.from_numpy(images[5:6]).permute(0, 3, 1, 2) / 255))
    assert torch.allclose(features[5:6], alone, atol=1e-5)


def test_is_interrupted_between_batches():
    network = create_network("test_efficientnet", 3, {})
    images = np.zeros((7, 32, 32, 3), np.uint8)
    asked = iter([False, True])
    with pytest.raises(Interrupted, match="interrupted at the features"):
        extract_features(
            network, normalisation("test_efficientnet"), images, device=torch.device("cpu"), progress=Silent(),
            label="features", batch_size=3, stop=lambda: next(asked),
        )  # fmt: skip
    assert next(asked, None) is None
