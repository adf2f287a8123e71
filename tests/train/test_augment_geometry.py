"""What moves pixels moves them where torchvision does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from edgetune.recipe import AugmentRecipe
from edgetune.train.augment import Draws, augment, draw, to_float

NOTHING = AugmentRecipe(
    crop_min_area=1.0, aspect=1.0, flip=False, rotation_degrees=0.0, brightness=0.0, contrast=0.0, saturation=0.0
)


def smooth(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Return one picture uint8 `[1, height, width, channels]` without symmetries."""
    y, x = np.mgrid[:height, :width] / 9.0
    waves = [np.sin(x * (1 + k / 7) + k) + np.cos(y * (1.1 - k / 9) - x / 3) for k in range(channels)]
    return torch.from_numpy(np.uint8(127 + 60 * np.stack(waves, axis=-1)))[None]


def view_of(image: torch.Tensor, **tensors: torch.Tensor) -> torch.Tensor:
    size = (image.shape[1], image.shape[2])
    return augment(image, Draws(1, tensors), NOTHING, size)[0]


def turn(degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]])


def assert_like_affine(view: torch.Tensor, image: torch.Tensor, **how: object) -> None:
    """Compare with torchvision's affine map wherever that shows nothing but the image."""
    settings = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | how
    settings["interpolation"] = InterpolationMode.BILINEAR
    wanted = reference.affine(to_float(image)[0], **settings)
    inside = reference.affine(torch.ones(1, *image.shape[1:3]), **settings)[0] > 0.9999
    assert inside.float().mean() > 0.4
    assert (view - wanted)[:, inside].abs().max() < 2e-4


SHAPES = pytest.mark.parametrize(("height", "width"), [(40, 40), (32, 48)])


@SHAPES
@pytest.mark.parametrize("degrees", [17.0, -90.0, 180.0])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_rotation(height, width, degrees, channels):
    image = smooth(height, width, channels)
    assert_like_affine(view_of(image, turn=turn(degrees)), image, angle=degrees)


@SHAPES
def test_shear(height, width):
    image = smooth(height, width)
    tangent = torch.tensor([math.tan(math.radians(20.0))])
    assert_like_affine(view_of(image, shear=tangent), image, shear=[20.0, 0.0])


@SHAPES
@pytest.mark.parametrize("factor", [0.7, 1.6])
def test_zoom(height, width, factor):
    image = smooth(height, width)
    assert_like_affine(view_of(image, zoom=torch.tensor([factor])), image, scale=factor)


@SHAPES
def test_shift(height, width):
    image = smooth(height, width)
    shift = torch.tensor([[6 / width, -5 / height]])
    view = view_of(image, shift=shift)
    assert_like_affine(view, image, translate=[6, -5])
    assert torch.allclose(view[:, :-5, :6], to_float(image)[0, :, 5:, :1].expand(-1, -1, 6), atol=1e-4)  # Repeats the border.


@SHAPES
def test_rotation_zoom_shear_and_shift_together(height, width):
    image = smooth(height, width)
    view = view_of(
        image,
        turn=turn(25.0),
        zoom=torch.tensor([0.9]),
        shear=torch.tensor([math.tan(math.radians(-10.0))]),
        shift=torch.tensor([[4 / width, 3 / height]]),
    )
    assert_like_affine(view, image, angle=25.0, scale=0.9, shear=[-10.0, 0.0], translate=[4, 3])


@SHAPES
def test_flips(height, width):
    image = smooth(height, width)
    yes = torch.tensor([True])
    plain = to_float(image)[0]
    assert torch.allclose(view_of(image, flip=yes), plain.flip(-1), atol=1e-4)
    assert torch.allclose(view_of(image, flip_vertical=yes), plain.flip(-2), atol=1e-4)
    assert torch.allclose(view_of(image, flip=~yes, flip_vertical=~yes), plain, atol=1e-4)
    assert torch.allclose(view_of(image, flip=yes, flip_vertical=yes), plain.flip(-1, -2), atol=1e-4)


@SHAPES
def test_a_crop_is_cut_out_and_resized(height, width):
    image = smooth(height, width)
    top, left, rows, columns = 4, 10, 20, 30 if width > 40 else 24
    crop = torch.tensor([
        [columns / width, rows / height, (2 * left + columns) / width - 1, (2 * top + rows) / height - 1],
    ])  # fmt: skip
    wanted = reference.resized_crop(to_float(image)[0], top, left, rows, columns, [height, width], antialias=False)
    # At its border a view sees a half pixel beyond the crop, where torchvision repeats the crop's own.
    assert torch.allclose(view_of(image, crop=crop)[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1], atol=2e-4)


def test_the_crop_comes_before_everything_else():
    image = smooth(40, 40)
    crop = torch.tensor([[0.5, 0.5, -0.5, 0.5]])
    view = view_of(image, crop=crop, flip=torch.tensor([True]), turn=turn(90.0))
    cut = reference.resized_crop(to_float(image)[0], 20, 0, 20, 20, [40, 40], antialias=False)
    wanted = cut.flip(-1).rot90(-1, (1, 2))  # torchvision's affine turns clockwise for positive angles.
    assert torch.allclose(view[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1], atol=2e-4)


def test_where_nothing_varies_a_smaller_view_is_the_image_resized():
    image = smooth(20, 30)
    wanted = torch.nn.functional.interpolate(to_float(image), size=(10, 15), mode="bilinear", align_corners=False)
    assert torch.allclose(augment(image, Draws(1, {}), NOTHING, (10, 15)), wanted, atol=1e-5)


def drawn(count: int = 4000, **keys: object) -> dict[str, torch.Tensor]:
    return draw(count, NOTHING.model_copy(update=keys), torch.Generator().manual_seed(5)).tensors


def test_half_of_the_views_are_mirrored():
    tensors = drawn(flip=True, flip_vertical=True)
    assert 0.47 < tensors["flip"].float().mean() < 0.53
    assert 0.47 < tensors["flip_vertical"].float().mean() < 0.53
    assert 0.22 < (tensors["flip"] & tensors["flip_vertical"]).float().mean() < 0.28


def test_crops_keep_the_area_and_aspect_asked_for_and_stay_inside():
    width, height, x, y = drawn(crop_min_area=0.25, aspect=1.5)["crop"].unbind(1)
    area, aspect = width * height, width / height
    assert 0.2 < area.min() < 0.3  # Less than asked for only where a side would be longer than the image's.
    assert area[(width < 1) & (height < 1)].min() >= 0.25 - 1e-5
    assert 0.9 < area.max() <= 1
    assert 1 / 1.5 - 1e-5 <= aspect.min() < 0.7
    assert 1.45 < aspect.max() <= 1.5 + 1e-5
    assert (x.abs() + width).max() <= 1 + 1e-6
    assert (y.abs() + height).max() <= 1 + 1e-6


def test_moves_fill_the_range_asked_for_and_no_more():
    tensors = drawn(rotation_degrees=40.0, shear_degrees=30.0, zoom=2.0, shift=0.1)
    turns = torch.rad2deg(torch.atan2(tensors["turn"][:, 1], tensors["turn"][:, 0]))
    shears = torch.rad2deg(tensors["shear"].atan())
    for values, largest in ((turns, 40.0), (shears, 30.0), (tensors["zoom"].log2(), 1.0), (tensors["shift"], 0.1)):
        assert -largest * 1.0001 <= values.min() < -0.98 * largest
        assert 0.98 * largest < values.max() <= largest * 1.0001
        assert abs(values.mean()) < 0.05 * largest
