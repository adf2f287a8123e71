"""Random views: drawn once an epoch, the same in whatever batch they are made, within the range of colours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.recipe import AugmentRecipe
from edgetune.train.augment import Draws, augment, draw, to_float, without_mirroring

STILL = {"crop_min_area": 1.0, "aspect": 1.0, "flip": False, "rotation_degrees": 0.0}
PALE = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
NOTHING = AugmentRecipe(**STILL, **PALE)
EVERYTHING = AugmentRecipe(
    crop_min_area=0.5, aspect=1.5, flip=True, rotation_degrees=30, flip_vertical=True, shift=0.2, shear_degrees=20, zoom=1.5,
    brightness=0.4, contrast=0.4, saturation=0.4, hue_degrees=60, grey=0.3, erase=0.5,
    policy="randaugment", policy_operations=3,
)  # fmt: skip
# What an option draws, where it is not called the same.
DRAWN = {
    "rotation_degrees": {"turn"}, "shear_degrees": {"shear"}, "hue_degrees": {"hue"},
    "policy": {"policy_operation", "policy_strength", "policy_turn"},
}  # fmt: skip


def pictures(count: int = 5, height: int = 20, width: int = 20, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, (count, height, width, channels), np.uint8))


def draws_of(recipe: AugmentRecipe, count: int, seed: int = 0) -> Draws:
    return draw(count, recipe, torch.Generator().manual_seed(seed))


def views_of(images: torch.Tensor, recipe: AugmentRecipe, size: tuple[int, int] | None = None, seed: int = 0) -> torch.Tensor:
    return augment(images, draws_of(recipe, len(images), seed), recipe, size or tuple(images.shape[1:3]))


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_floats_are_channels_last_and_end_at_one():
    images = pictures()
    floats = to_float(images)
    assert floats.shape == (5, 3, 20, 20)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((floats * 255).round().to(torch.uint8).permute(0, 2, 3, 1), images)


@settings(max_examples=40)
@given(
    area=st.floats(0.06, 1.0),
    aspect=st.floats(1.0, 2.0),
    degrees=st.floats(0.0, 180.0),
    shift=st.floats(0.0, 0.5),
    zoom=st.floats(1.0, 4.0),
    colour=st.tuples(*[st.floats(0.0, 1.0)] * 4),
    hue=st.floats(0.0, 180.0),
    erase=st.floats(0.0, 1.0),
    flip=st.booleans(),
    policy=st.sampled_from(["none", "randaugment", "trivialaugment"]),
    magnitude=st.floats(0.0, 30.0),
    channels=st.sampled_from([1, 3, 5]),
    size=st.tuples(st.integers(8, 30), st.integers(8, 30)),
    seed=st.integers(0, 2**40),
)
def test_views_have_the_size_asked_for_and_stay_colours(
    area, aspect, degrees, shift, zoom, colour, hue, erase, flip, policy, magnitude, channels, size, seed
):
    recipe = AugmentRecipe(
        crop_min_area=area, aspect=aspect, rotation_degrees=degrees, flip=flip, shift=shift, zoom=zoom, erase=erase,
        brightness=colour[0], contrast=colour[1], saturation=colour[2], grey=colour[3], hue_degrees=hue,
        policy=policy, policy_magnitude=magnitude,
    )  # fmt: skip
    images = pictures(3, channels=channels)
    views = views_of(images, recipe, size, seed)
    assert views.shape == (3, channels, *size)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(views, views_of(images, recipe, size, seed))


def test_another_seed_gives_other_views():
    recipe = AugmentRecipe(flip=True)
    assert not torch.equal(views_of(pictures(), recipe), views_of(pictures(), recipe, seed=1))


@pytest.mark.parametrize("policy", ["none", "randaugment", "trivialaugment"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_view_has_the_same_bits_in_any_batch(policy, channels, threads):
    recipe = EVERYTHING.model_copy(update={"policy": policy})
    images, size = pictures(40, 37, 41, channels), (33, 35)
    draws = draws_of(recipe, len(images))
    together = augment(images, draws, recipe, size)
    backwards = torch.arange(len(images)).flip(0)
    assert torch.equal(augment(images[backwards], draws.take(backwards), recipe, size)[backwards], together)
    some = torch.tensor([31, 2, 7])
    assert torch.equal(augment(images[some], draws.take(some), recipe, size), together[some])
    for row in range(len(images)):
        alone = augment(images[row : row + 1], draws.take(torch.tensor([row])), recipe, size)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_colours_alone_have_the_same_bits_in_any_batch(channels, threads):
    recipe = EVERYTHING.model_copy(update=STILL | {"flip_vertical": False, "shift": 0.0, "shear_degrees": 0.0, "zoom": 1.0})
    recipe = recipe.model_copy(update={"policy": "none"})
    images = pictures(20, 37, 41, channels)
    draws = draws_of(recipe, len(images))
    together = augment(images, draws, recipe, (37, 41))
    for row in range(len(images)):
        alone = augment(images[row : row + 1], draws.take(torch.tensor([row])), recipe, (37, 41))
        assert torch.equal(alone[0], together[row])


def test_a_large_view_has_the_same_bits_alone(threads):
    # A single image of so many pixels is where PyTorch would split a sum between threads.
    recipe = AugmentRecipe(flip=True, contrast=0.5)
    images = pictures(3, 256, 256)
    draws = draws_of(recipe, 3)
    together = augment(images, draws, recipe, (224, 224))
    for row in range(3):
        assert torch.equal(
            augment(images[row : row + 1], draws.take(torch.tensor([row])), recipe, (224, 224))[0], together[row]
        )


def test_draws_do_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(draws_of(EVERYTHING, 100_001).tensors)
    torch.set_num_threads(before)
    assert all(torch.equal(values, found[1][name]) for name, values in found[0].items())


@pytest.mark.parametrize(("key", "off"), [
    ("flip", False), ("flip_vertical", False), ("rotation_degrees", 0.0), ("shift", 0.0), ("shear_degrees", 0.0), ("zoom", 1.0),
    ("brightness", 0.0), ("contrast", 0.0), ("saturation", 0.0), ("hue_degrees", 0.0), ("grey", 0.0), ("erase", 0.0),
    ("policy", "none"),
])  # fmt: skip
def test_what_is_off_is_not_drawn_and_leaves_the_other_draws_alone(key, off):
    everything = draws_of(EVERYTHING, 50).tensors
    rest = draws_of(EVERYTHING.model_copy(update={key: off}), 50).tensors
    assert everything.keys() - rest.keys() == DRAWN.get(key, {key})
    assert all(torch.equal(values, everything[name]) for name, values in rest.items())


def test_nothing_is_drawn_where_nothing_varies():
    draws = draws_of(NOTHING, 7)
    assert draws.tensors == {}
    assert len(draws) == 7
    assert len(draws.take(torch.tensor([3, 1]))) == 2


def test_taken_draws_are_those_of_the_rows():
    draws = draws_of(EVERYTHING, 30)
    taken = draws.take(torch.tensor([20, 4, 4]))
    assert len(taken) == 3
    assert all(torch.equal(taken.tensors[name], values[[20, 4, 4]]) for name, values in draws.tensors.items())


def test_the_draws_of_a_large_epoch_are_small():
    draws = draws_of(AugmentRecipe(flip=True), 300_000)
    assert sum(values.nbytes for values in draws.tensors.values()) < 40e6 / 3


def test_each_image_needs_a_draw():
    with pytest.raises(ValueError, match="got 5 images and 4 draws"):
        augment(pictures(5), draws_of(NOTHING, 4), NOTHING, (20, 20))


def test_an_undecided_flip_is_not_drawn():
    with pytest.raises(ValueError, match="flip must be decided"):
        draws_of(AugmentRecipe(), 4)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (16, 24)])
def test_where_nothing_varies_the_view_is_the_image(height, width):
    images = pictures(height=height, width=width)
    assert torch.allclose(views_of(images, NOTHING), to_float(images), atol=1e-6)


def test_views_leave_the_images_as_they_are():
    images = pictures()
    before = images.clone()
    views_of(images, EVERYTHING)
    assert torch.equal(images, before)


def test_erasing_blanks_the_pixels_in_the_box():
    images = pictures(3)
    box = torch.tensor([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    views = augment(images, Draws(3, {"erase": box}), NOTHING, (20, 20))
    wanted = to_float(images)
    wanted[0, :, 10:, 5:15] = 0.5
    wanted[2] = 0.5
    assert torch.allclose(views, wanted, atol=1e-6)


def test_as_many_images_are_erased_as_asked_for_and_a_third_of_them_at_most():
    recipe = NOTHING.model_copy(update={"erase": 0.25})
    left, top, right, bottom = draws_of(recipe, 4000).tensors["erase"].unbind(1)
    area = (right - left) * (bottom - top)
    assert 0.22 < (area > 0).float().mean() < 0.28
    assert 0.02 - 1e-4 <= area[area > 0].min() < 0.03
    assert 0.3 < area.max() <= 0.33 + 1e-4
    assert min(left.min(), top.min()) >= 0
    assert max(right.max(), bottom.max()) <= 1 + 1e-6
    ratio = ((bottom - top) / (right - left))[area > 0]
    assert 0.3 <= ratio.min() < 0.4
    assert 2.8 < ratio.max() <= 3.31


@pytest.mark.parametrize(("flip", "source", "decided"), [
    ("auto", "digits", False), ("auto", "/photos", True), (True, "digits", True), (False, "/photos", False),
])  # fmt: skip
def test_digits_are_not_mirrored(flip, source, decided):
    assert without_mirroring(AugmentRecipe(flip=flip), source).flip is decided


@pytest.mark.parametrize("policy", ["none", "randaugment", "trivialaugment"])
def test_everything_is_computed_where_the_images_lie(policy):
    # The meta device computes nothing, but refuses to mix with tensors of another device, as every device does.
    recipe = EVERYTHING.model_copy(update={"policy": policy})
    views = augment(pictures(60).to("meta"), draws_of(recipe, 60), recipe, (16, 18))
    assert (views.device.type, views.shape) == ("meta", (60, 3, 16, 18))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_makes_the_same_views():
    images = pictures(16, 40, 44)
    draws = draws_of(EVERYTHING, 16)
    here = augment(images, draws, EVERYTHING, (33, 35))
    there = augment(images.cuda(), draws, EVERYTHING, (33, 35))
    assert there.is_cuda
    # A byte that rounds the other way moves by a whole step of posterize, or past solarize's threshold: a few pixels may.
    assert ((there.cpu() - here).abs() < 1e-3).float().mean() > 0.999
