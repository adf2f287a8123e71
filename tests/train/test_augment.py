"""Random views: the same for the same seed, within the range of colours, and no view at all where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.recipe import AugmentRecipe
from edgetune.train.augment import augment, mix, to_float, without_mirroring

STILL = {"crop_min_area": 1.0, "aspect": 1.0, "flip": False, "rotation_degrees": 0.0}
PALE = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
NOTHING = AugmentRecipe(**STILL, **PALE)


def pictures(count: int = 5, height: int = 20, width: int = 20) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8))


def views_of(images: torch.Tensor, recipe: AugmentRecipe, size: tuple[int, int] | None = None, seed: int = 0) -> torch.Tensor:
    return augment(images, recipe, size or tuple(images.shape[1:3]), torch.Generator().manual_seed(seed))


def test_floats_are_channels_last_and_end_at_one():
    images = pictures()
    floats = to_float(images)
    assert floats.shape == (5, 3, 20, 20)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((floats * 255).round().to(torch.uint8).permute(0, 2, 3, 1), images)


@settings(max_examples=25, deadline=None)
@given(
    area=st.floats(0.06, 1.0),
    aspect=st.floats(1.0, 2.0),
    degrees=st.floats(0.0, 180.0),
    colour=st.tuples(*[st.floats(0.0, 1.0)] * 3),
    flip=st.booleans(),
    size=st.tuples(st.integers(8, 30), st.integers(8, 30)),
    seed=st.integers(0, 2**40),
)
def test_views_have_the_size_asked_for_and_stay_colours(area, aspect, degrees, colour, flip, size, seed):
    recipe = AugmentRecipe(
        crop_min_area=area, aspect=aspect, rotation_degrees=degrees, flip=flip,
        brightness=colour[0], contrast=colour[1], saturation=colour[2],
    )  # fmt: skip
    views = views_of(pictures(3), recipe, size, seed)
    assert views.shape == (3, 3, *size)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(views, views_of(pictures(3), recipe, size, seed))


def test_another_seed_gives_other_views():
    recipe = AugmentRecipe(flip=True)
    assert not torch.equal(views_of(pictures(), recipe), views_of(pictures(), recipe, seed=1))


@pytest.mark.parametrize(("height", "width"), [(20, 20), (16, 24)])
def test_where_nothing_varies_the_view_is_the_image(height, width):
    images = pictures(height=height, width=width)
    assert torch.allclose(views_of(images, NOTHING), to_float(images), atol=1e-5)


def test_where_nothing_varies_a_smaller_view_is_the_image_resized():
    images = pictures(height=20, width=20)
    wanted = torch.nn.functional.interpolate(to_float(images), size=(10, 10), mode="bilinear", align_corners=False)
    assert torch.allclose(views_of(images, NOTHING, (10, 10)), wanted, atol=1e-5)


def test_half_of_the_views_are_mirrored_left_and_right():
    images = pictures(1).expand(200, -1, -1, -1)
    views = views_of(images, NOTHING.model_copy(update={"flip": True}))
    straight, mirrored = to_float(images[:1])[0], to_float(images[:1])[0].flip(-1)
    is_mirrored = [torch.allclose(view, mirrored, atol=1e-5) for view in views]
    assert all(torch.allclose(view, straight, atol=1e-5) for view, other in zip(views, is_mirrored, strict=True) if not other)
    assert 70 <= sum(is_mirrored) <= 130


def test_rotation_turns_within_the_image():
    image = torch.zeros(1, 21, 21, 3, dtype=torch.uint8)
    image[:, 10, 10] = 255  # The centre stays where it is,
    image[:, 2, 10] = 255  # and what lies off it goes round.
    views = views_of(image.expand(50, -1, -1, -1), NOTHING.model_copy(update={"rotation_degrees": 180.0}))
    assert (views[:, :, 10, 10] > 0.9).all()
    views[:, :, 7:14, 7:14] = 0
    y, x = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(21.0) - 10, indexing="ij")
    light = views[:, 0] / views[:, 0].sum((1, 2), keepdim=True)
    at = torch.stack([(light * y).sum((1, 2)), (light * x).sum((1, 2))])
    assert torch.allclose(at.norm(dim=0), torch.tensor(8.0), atol=0.2)
    assert at[0].min() < -6
    assert at[0].max() > 6


def test_crops_keep_at_least_the_area_asked_for():
    ramp = torch.arange(200, dtype=torch.uint8).view(1, 1, 200, 1).expand(40, 200, 200, 3)
    views = views_of(ramp, NOTHING.model_copy(update={"crop_min_area": 0.5}))
    widths = (views[:, 0, 0].amax(-1) - views[:, 0, 0].amin(-1)) * 255 / 199
    assert widths.min() >= 0.5**0.5 - 0.02
    assert widths.min() < 0.8
    assert widths.max() <= 1.001


def test_each_colour_change_does_what_its_name_says():
    images = pictures(8)
    plain = to_float(images)
    grey = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    darker = views_of(images // 2, AugmentRecipe(**STILL, **PALE | {"brightness": 0.5})) / to_float(images // 2).clamp_min(1e-9)
    seen = to_float(images // 2) > 0
    for ratio, mask in zip(darker, seen, strict=True):  # One factor for the whole image.
        assert ratio[mask].max() - ratio[mask].min() < 1e-3
        assert 0.5 <= ratio[mask].mean() <= 1.5
    tame = AugmentRecipe(**STILL, **PALE | {"saturation": 0.1})
    middle = (images // 2) + 64  # Far from black and white, so that nothing is cut off.
    assert torch.allclose((views_of(middle, tame) * grey).sum(1), (to_float(middle) * grey).sum(1), atol=1e-4)
    flat = AugmentRecipe(**STILL, **PALE | {"contrast": 0.1})
    means = (to_float(middle) * grey).sum(1).mean((1, 2))
    assert torch.allclose((views_of(middle, flat) * grey).sum(1).mean((1, 2)), means, atol=1e-4)
    assert not torch.allclose(views_of(images, flat), plain)


@settings(max_examples=25, deadline=None)
@given(alpha=st.floats(0.01, 10.0), seed=st.integers(0, 2**62 - 1))
def test_mixed_views_lie_between_a_view_and_its_partner(alpha, seed):
    views = to_float(pictures(6))
    mixed, partners, share = mix(views, alpha, seed)
    assert 0.5 <= share <= 1
    assert sorted(partners.tolist()) == list(range(6))
    assert torch.allclose(mixed, share * views + (1 - share) * views[partners])
    low, high = torch.minimum(views, views[partners]), torch.maximum(views, views[partners])
    assert ((mixed >= low - 1e-6) & (mixed <= high + 1e-6)).all()


def test_no_mixing():
    views = to_float(pictures(4))
    mixed, partners, share = mix(views, 0.0, 1)
    assert mixed is views
    assert partners.tolist() == [0, 1, 2, 3]
    assert share == 1


@pytest.mark.parametrize(("flip", "source", "decided"), [
    ("auto", "digits", False), ("auto", "/photos", True), (True, "digits", True), (False, "/photos", False),
])  # fmt: skip
def test_digits_are_not_mirrored(flip, source, decided):
    assert without_mirroring(AugmentRecipe(flip=flip), source).flip is decided
