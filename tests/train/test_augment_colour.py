"""What changes colours changes them as torchvision does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from edgetune.recipe import AugmentRecipe
from edgetune.train.augment import Draws, augment, colour_faults, draw, to_float

NOTHING = AugmentRecipe(
    crop_min_area=1.0, aspect=1.0, flip=False, rotation_degrees=0.0, brightness=0.0, contrast=0.0, saturation=0.0
)


def pictures(count: int = 4, channels: int = 3, low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).integers(low, high, (count, 20, 24, channels), np.uint8))


def view_of(images: torch.Tensor, **tensors: list[float] | list[bool]) -> torch.Tensor:
    draws = Draws(len(images), {name: torch.tensor(values) for name, values in tensors.items()})
    return augment(images, draws, NOTHING, (20, 24))


FACTORS = [0.0, 0.6, 1.0, 1.7]


# torchvision's grey weighs red by 0.2989, Pillow's and ours by 0.299.
@pytest.mark.parametrize(("name", "change", "tolerance"), [
    ("brightness", reference.adjust_brightness, 1e-6),
    ("contrast", reference.adjust_contrast, 2e-4),
    ("saturation", reference.adjust_saturation, 2e-4),
])  # fmt: skip
def test_factors(name, change, tolerance):
    images = pictures()
    wanted = torch.stack([change(image, factor) for image, factor in zip(to_float(images), FACTORS, strict=True)])
    assert (view_of(images, **{name: FACTORS}) - wanted).abs().max() < tolerance


def test_hue():
    images = pictures(6)
    images[4] = 90  # Grey has no hue,
    images[5, :, :, 1] = images[5, :, :, 0]  # and two equal channels are where the formula changes its branch.
    turns = [0.0, 0.25, -0.5, 0.07, 0.3, 0.4]
    wanted = torch.stack([reference.adjust_hue(image, turn) for image, turn in zip(to_float(images), turns, strict=True)])
    assert (view_of(images, hue=turns) - wanted).abs().max() < 1e-5


def test_grey():
    images = pictures()
    views = view_of(images, grey=[True, False, True, False])
    wanted = reference.rgb_to_grayscale(to_float(images), num_output_channels=3)
    assert (views - wanted)[[0, 2]].abs().max() < 2e-4
    assert torch.allclose(views[[1, 3]], to_float(images)[[1, 3]], atol=1e-6)


def test_all_colours_together_are_one_after_the_other():
    images = pictures(low=80, high=170)  # Far from black and white, so that nothing is cut off on the way.
    tensors = {
        "brightness": [0.9, 1.1, 1.0, 1.2],
        "contrast": [1.1, 0.8, 1.2, 1.0],
        "saturation": [0.7, 1.2, 1.0, 0.5],
        "hue": [0.1, -0.2, 0.3, 0.0],
        "grey": [False, False, True, False],
    }
    for row, wanted in enumerate(to_float(images)):
        wanted = reference.adjust_hue(wanted, tensors["hue"][row])
        wanted = reference.adjust_brightness(wanted, tensors["brightness"][row])
        wanted = reference.adjust_saturation(wanted, tensors["saturation"][row])
        if tensors["grey"][row]:
            wanted = reference.rgb_to_grayscale(wanted, num_output_channels=3)
        wanted = reference.adjust_contrast(wanted, tensors["contrast"][row])
        assert (view_of(images, **tensors)[row] - wanted).abs().max() < 5e-4


@pytest.mark.parametrize("channels", [1, 5])
def test_other_images_than_rgb_have_brightness_and_contrast_only(channels):
    images = pictures(channels=channels)
    plain = to_float(images)
    assert torch.allclose(view_of(images, brightness=FACTORS), (plain * torch.tensor(FACTORS).view(-1, 1, 1, 1)).clamp(0, 1))
    mean = plain.mean((1, 2, 3), keepdim=True)
    wanted = (mean + (plain - mean) * torch.tensor(FACTORS).view(-1, 1, 1, 1)).clamp(0, 1)
    assert torch.allclose(view_of(images, contrast=FACTORS), wanted, atol=1e-6)
    assert torch.allclose(view_of(images, saturation=FACTORS, hue=FACTORS, grey=[True] * 4), plain, atol=1e-6)


def test_colours_fill_the_range_asked_for_and_no_more():
    recipe = AugmentRecipe(flip=False, brightness=0.3, contrast=0.5, saturation=1.0, hue_degrees=90.0, grey=0.2)
    tensors = draw(4000, recipe, torch.Generator().manual_seed(1)).tensors
    ranges = {"brightness": (0.7, 1.3), "contrast": (0.5, 1.5), "saturation": (0.0, 2.0), "hue": (-0.25, 0.25)}
    for name, (low, high) in ranges.items():
        assert low - 1e-6 <= tensors[name].min() < low + 0.02
        assert high - 0.02 < tensors[name].max() <= high + 1e-6
    assert 0.17 < tensors["grey"].float().mean() < 0.23


def test_asking_for_colour_where_there_is_none_is_a_fault():
    recipe = AugmentRecipe(saturation=0.3, hue_degrees=20.0, grey=0.0)
    faults = colour_faults(recipe, 1)
    assert [fault.split()[0] for fault in faults] == ["augment.saturation", "augment.hue_degrees"]
    assert "is 0.3, but images of 1 channel have no colour" in faults[0]
    assert "images of 5 channels" in colour_faults(recipe, 5)[0]
    assert colour_faults(recipe, 3) == []
    assert colour_faults(AugmentRecipe(), 1) == []  # The default saturation was nobody's wish.
