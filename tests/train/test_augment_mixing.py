"""MixUp and CutMix: the share is the part of the view that is its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.recipe import AugmentRecipe
from edgetune.train.augment import mix


def constants(count: int = 6, channels: int = 3) -> torch.Tensor:
    """Return views of one value each, so that a mixed view's mean tells its share."""
    values = torch.linspace(0, 1, count).view(-1, 1, 1, 1)
    return values.expand(count, channels, 12, 17).contiguous(memory_format=torch.channels_last)


@settings(max_examples=40)
@given(
    mixup=st.floats(0.0, 10.0),
    cutmix=st.floats(0.0, 10.0),
    channels=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 2**62 - 1),
)
def test_the_share_is_the_part_of_the_view_itself(mixup, cutmix, channels, seed):
    views = constants(channels=channels)
    before = views.clone()
    recipe = AugmentRecipe(mixup=mixup, cutmix=cutmix)
    mixed = mix(views, recipe, seed)
    assert torch.equal(views, before)
    assert sorted(mixed.partners.tolist()) == list(range(6))
    assert mixed.share.dtype == torch.float32
    assert mixed.share.min() >= 0
    assert mixed.share.max() <= 1
    values = views[:, 0, 0, 0]
    wanted = mixed.share * values + (1 - mixed.share) * values[mixed.partners]
    assert torch.allclose(mixed.views.mean((1, 2, 3)), wanted, atol=1e-5)
    assert mixed.views.is_contiguous(memory_format=torch.channels_last)
    again = mix(views, recipe, seed)
    assert torch.equal(again.views, mixed.views)
    assert torch.equal(again.share, mixed.share)


@pytest.mark.parametrize("seed", range(20))
def test_mixup_blends_the_batch_by_one_share_of_a_half_at_least(seed):
    views = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    mixed = mix(views, AugmentRecipe(mixup=0.8), seed)
    share = mixed.share[0]
    assert (mixed.share == share).all()
    assert 0.5 <= share < 1
    assert torch.allclose(mixed.views, share * views + (1 - share) * views[mixed.partners], atol=1e-6)


def test_cutmix_replaces_one_box_of_each_image():
    views = torch.rand(300, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    mixed = mix(views, AugmentRecipe(cutmix=1.0), 3)
    kept = (mixed.views == views).all(1)
    swapped = (mixed.views == views[mixed.partners]).all(1)
    assert (kept | swapped).all()
    other = mixed.partners != torch.arange(300)
    assert torch.allclose(kept.float().mean((1, 2))[other], mixed.share[other])
    for box in (~kept[other])[:50]:  # A box: each of its rows has the same columns.
        rows = box.any(1)
        assert (box[rows] == box.any(0)).all()
        assert rows.nonzero().diff(dim=0).eq(1).all()
        assert box.any(0).nonzero().diff(dim=0).eq(1).all()
    assert 0.5 < mixed.share.mean() < 0.9  # Boxes cut off at the border leave more than the half that is drawn.
    assert len(mixed.share.unique()) > 100


@pytest.mark.parametrize("recipe", [AugmentRecipe(), AugmentRecipe(mix_probability=0.5)])
def test_no_mixing(recipe):
    views = constants(4)
    mixed = mix(views, recipe, 1)
    assert mixed.views is views
    assert mixed.partners.tolist() == [0, 1, 2, 3]
    assert mixed.share.tolist() == [1, 1, 1, 1]


def test_a_part_of_the_batches_is_mixed_and_both_ways_take_turns():
    views = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    recipe = AugmentRecipe(mixup=1.0, cutmix=1.0, mix_probability=0.6)
    found = {"none": 0, "mixup": 0, "cutmix": 0}
    for seed in range(600):
        mixed = mix(views, recipe, seed)
        if mixed.views is views:
            found["none"] += 1
        else:
            found["mixup" if (mixed.share == mixed.share[0]).all() else "cutmix"] += 1
    assert 200 < found["none"] < 280
    assert 140 < found["mixup"] < 220
    assert 140 < found["cutmix"] < 220


def test_the_partners_do_not_depend_on_whether_batches_take_turns():
    views = constants()
    partners = [
        mix(views, AugmentRecipe(**keys), 9).partners.tolist()
        for keys in ({"mixup": 1}, {"cutmix": 1}, {"mixup": 1, "cutmix": 1})
    ]
    assert partners[0] == partners[1] == partners[2]


@pytest.mark.parametrize("keys", [{}, {"mixup": 1.0}, {"cutmix": 1.0}])
def test_views_are_mixed_where_they_lie(keys):
    # The meta device computes nothing, but refuses to mix with tensors of another device, as every device does.
    mixed = mix(constants().to("meta"), AugmentRecipe(**keys), 1)
    assert {tensor.device.type for tensor in (mixed.views, mixed.partners, mixed.share)} == {"meta"}
