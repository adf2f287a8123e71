"""RandAugment's and TrivialAugment's operations do what torchvision's do, at the same strengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from edgetune.recipe import AugmentRecipe
from edgetune.train.augment import Draws, augment, draw, to_float
from edgetune.train.augment.operations import COLOUR_OPERATIONS
from edgetune.train.augment.policy import GEOMETRY, OPERATIONS, RANDAUGMENT, TRIVIALAUGMENT, strengths

STILL = {"crop_min_area": 1.0, "aspect": 1.0, "flip": False, "rotation_degrees": 0.0}
PALE = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
POLICIES = ["randaugment", "trivialaugment"]
THEIRS = {
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY",
    "rotate": "Rotate", "brightness": "Brightness", "colour": "Color", "contrast": "Contrast", "sharpness": "Sharpness",
    "posterize": "Posterize", "solarize": "Solarize", "autocontrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip


def recipe_of(policy: str, **keys: object) -> AugmentRecipe:
    return AugmentRecipe(**STILL, **PALE, policy=policy, **keys)


def pictures(count: int = 1, height: int = 40, width: int = 40, channels: int = 3) -> torch.Tensor:
    """Return smooth pictures with a little noise, of a narrower range than all bytes."""
    generator = np.random.default_rng(5)
    y, x = np.mgrid[:height, :width] / 9.0
    waves = np.stack([np.sin(x * (1 + k / 7) + k) + np.cos(y * (1.1 - k / 9) - x / 3) for k in range(channels)], axis=-1)
    return torch.from_numpy(np.uint8(115 + 50 * waves + generator.integers(0, 20, (count, height, width, channels))))


def chosen(policy: str, *names: str, level: float = 9.0, sign: float = 1.0, count: int = 1) -> Draws:
    """Return draws in which every image gets the operations named."""
    table = RANDAUGMENT if policy == "randaugment" else TRIVIALAUGMENT
    values = [
        0.0 if name == "identity" else float(strengths(name, torch.tensor(level), table[name]))
        * (1.0 if name in ("posterize", "solarize") else sign)
        for name in names
    ]  # fmt: skip
    angles = torch.deg2rad(
        torch.tensor([value if name == "rotate" else 0.0 for name, value in zip(names, values, strict=True)])
    )
    rows = {
        "policy_operation": torch.tensor([OPERATIONS.index(name) for name in names], dtype=torch.uint8),
        "policy_strength": torch.tensor(values),
        "policy_turn": torch.stack([angles.cos(), angles.sin()], dim=-1),
    }
    return Draws(count, {name: row.expand(count, *row.shape).clone() for name, row in rows.items()})


def theirs(image: torch.Tensor, policy: str, name: str, level: int, sign: float) -> torch.Tensor:
    """Return what torchvision makes of `[K, H, W]`, bytes or floats."""
    policy_of = v2.RandAugment() if policy == "randaugment" else v2.TrivialAugmentWide()
    magnitudes, signed = policy_of._AUGMENTATION_SPACE[THEIRS[name]]
    table = magnitudes(31, *image.shape[1:])
    magnitude = 0.0 if table is None else float(table[level]) * (sign if signed else 1.0)
    return policy_of._apply_image_or_video_transform(
        image, THEIRS[name], magnitude, interpolation=InterpolationMode.BILINEAR, fill={}
    )


def test_the_operations_are_torchvisions():
    assert set(THEIRS) == set(OPERATIONS)
    for policy in (v2.RandAugment, v2.TrivialAugmentWide):
        assert set(policy._AUGMENTATION_SPACE) == set(THEIRS.values())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["identity", *COLOUR_OPERATIONS])
@pytest.mark.parametrize(("level", "sign"), [(0, 1.0), (9, 1.0), (10, -1.0), (17, -1.0), (30, 1.0), (30, -1.0)])
def test_colour_operations(policy, name, level, sign):
    image = pictures()
    view = augment(image, chosen(policy, name, level=level, sign=sign), recipe_of(policy), (40, 40))[0]
    if name in ("posterize", "equalize"):  # Of bytes; torchvision's floats are quantised in another way.
        wanted = theirs(image[0].permute(2, 0, 1), policy, name, level, sign) / 255
    else:
        wanted = theirs(to_float(image)[0], policy, name, level, sign)
    # 2e-4 for torchvision's grey, which weighs red by 0.2989.
    assert (view - wanted).abs().max() < 4e-4


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("height", "width"), [(40, 40), (64, 80)])
def test_geometric_operations(policy, name, sign, height, width):
    level = 16
    image = pictures(height=height, width=width)
    draws = chosen(policy, name, level=level, sign=sign)
    if name.startswith("translate"):  # torchvision's moves by whole pixels.
        side = {"x": width, "y": height}[name[-1]]
        unit = side if policy == "randaugment" else 1
        draws.tensors["policy_strength"].mul_(unit).trunc_().div_(unit)
    view = augment(image, draws, recipe_of(policy), (height, width))[0]
    wanted = theirs(to_float(image)[0], policy, name, level, sign)
    inside = theirs(torch.ones(1, height, width), policy, name, level, sign)[0] > 0.9999
    assert inside.float().mean() > 0.3
    assert (view - wanted)[:, inside].abs().max() < 2e-3
    assert (view - to_float(image)[0]).abs().max() > 0.1


def test_operations_come_one_after_the_other():
    image = pictures()
    names = ["solarize", "brightness", "posterize"]
    view = augment(image, chosen("randaugment", *names, level=15), recipe_of("randaugment"), (40, 40))[0]
    wanted = to_float(image)[0]
    for name in names:
        if name == "posterize":
            wanted = (wanted * 255).round().to(torch.uint8)
        wanted = theirs(wanted, "randaugment", name, 15, 1.0)
    assert torch.allclose(view, wanted / 255, atol=1e-5)


def test_geometric_operations_come_one_after_the_other():
    # Turning by a quarter and then shifting along x is not the same the other way round.
    image = pictures()
    turns = chosen("trivialaugment", "rotate", "translate_x", level=15)
    turns.tensors["policy_turn"][:, 0] = torch.tensor([0.0, 1.0])
    turns.tensors["policy_strength"][:, 1] = 10.0
    view = augment(image, turns, recipe_of("trivialaugment"), (40, 40))[0]
    wanted = to_float(image)[0].rot90(1, (1, 2))
    assert torch.allclose(view[:, :, 10:], wanted[:, :, :-10], atol=1e-3)


def test_each_image_gets_its_own_operation():
    images = pictures(len(OPERATIONS))
    alone = [
        augment(images[k : k + 1], chosen("randaugment", name), recipe_of("randaugment"), (40, 40))[0]
        for k, name in enumerate(OPERATIONS)
    ]
    each = [chosen("randaugment", name) for name in OPERATIONS]
    draws = Draws(len(images), {key: torch.cat([one.tensors[key] for one in each]) for key in each[0].tensors})
    assert torch.equal(augment(images, draws, recipe_of("randaugment"), (40, 40)), torch.stack(alone))


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", COLOUR_OPERATIONS)
def test_operations_on_other_images_than_rgb(channels, name):
    images = pictures(2, channels=channels)
    plain = to_float(images)
    views = augment(images, chosen("randaugment", name, level=20, count=2), recipe_of("randaugment"), (40, 40))
    if name == "colour":
        assert torch.allclose(views, plain, atol=1e-6)
    elif name == "contrast":
        mean = plain.mean((1, 2, 3), keepdim=True)
        assert torch.allclose(views, (mean + (plain - mean) * 1.6).clamp(0, 1), atol=1e-5)
    else:  # What works on each channel by itself can be asked of torchvision channel by channel.
        bytes_wanted = name in ("posterize", "equalize")
        source = images.permute(0, 3, 1, 2) if bytes_wanted else plain
        for view, image in zip(views.flatten(0, 1), source.flatten(0, 1), strict=True):
            wanted = theirs(image[None], "randaugment", name, 20, 1.0)[0] / (255 if bytes_wanted else 1)
            assert (view - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["equalize", "autocontrast", "sharpness"])
def test_a_picture_of_one_value_stays(name):
    image = torch.full((1, 8, 8, 3), 77, dtype=torch.uint8)
    view = augment(image, chosen("randaugment", name), recipe_of("randaugment"), (8, 8))
    assert torch.allclose(view, to_float(image), atol=1e-6)


def test_randaugment_draws_so_many_operations_at_one_strength():
    recipe = recipe_of("randaugment", policy_operations=3, policy_magnitude=15.0)
    tensors = draw(6000, recipe, torch.Generator().manual_seed(2)).tensors
    operations, strength = tensors["policy_operation"], tensors["policy_strength"]
    assert operations.shape == (6000, 3)
    shares = operations.flatten().long().bincount(minlength=len(OPERATIONS)) / operations.numel()
    assert (shares - 1 / len(OPERATIONS)).abs().max() < 0.01
    wanted = {"shear_x": 0.15, "translate_y": 75 / 331, "rotate": 15.0, "brightness": 0.45, "sharpness": 0.45}
    for name, value in wanted.items():
        found = strength[operations == OPERATIONS.index(name)]
        assert torch.allclose(found.abs(), torch.tensor(value), rtol=1e-5)
        assert 0.4 < (found > 0).float().mean() < 0.6
    assert strength[operations == OPERATIONS.index("posterize")].unique().tolist() == [4.0]
    assert strength[operations == OPERATIONS.index("solarize")].unique().tolist() == pytest.approx([0.5], abs=1e-5)


def test_trivialaugment_draws_one_operation_at_any_strength():
    tensors = draw(20_000, recipe_of("trivialaugment", policy_operations=3), torch.Generator().manual_seed(2)).tensors
    operations, strength = tensors["policy_operation"], tensors["policy_strength"]
    assert operations.shape == (20_000, 1)
    rotations = strength[operations == OPERATIONS.index("rotate")]
    assert torch.allclose(rotations.abs().unique(), torch.linspace(0, 135, 31), atol=1e-4)
    assert rotations.min() == -135
    assert strength[operations == OPERATIONS.index("posterize")].unique().tolist() == [1, 2, 4, 8, 16, 32, 64]
