from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits, load_sample_images

from edgetune.data.duplicates import Groups, hash_thumbnails, near_duplicates, pairs_within, thumbnail


def grouped(images: list[np.ndarray], bits: int = 4) -> list[list[int]]:
    thumbnails = np.stack([thumbnail(image) for image in images])
    groups = Groups(len(images))
    near_duplicates(thumbnails, bits, groups, range(len(images)))
    roots = groups.roots()
    return [np.flatnonzero(roots == root).tolist() for root in np.unique(roots) if (roots == root).sum() > 1]


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    """Return 24 cuts of two photographs, none overlapping another."""
    return [
        np.ascontiguousarray(photo[y : y + 140, x : x + 150])
        for photo in load_sample_images().images
        for y, x in itertools.product((0, 141, 282), (0, 155, 310, 465))
    ]


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.sets(st.integers(0, 63), max_size=8)), max_size=30),
    st.integers(0, 16),
)
def test_the_search_finds_what_comparing_all_pairs_finds(
    seeds: list[int], flips: list[tuple[int, set[int]]], bits: int
) -> None:
    # Random numbers are never near each other: plant some that are.
    planted = [seeds[place] ^ sum(1 << bit for bit in flipped) for place, flipped in flips if place < len(seeds)]
    numbers = seeds + planted
    found = {
        (min(pair), max(pair))
        for one, other in pairs_within(np.array(numbers, np.uint64), bits)
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    }
    expected = {(i, j) for (i, a), (j, b) in itertools.combinations(enumerate(numbers), 2) if (a ^ b).bit_count() <= bits}
    assert found == expected


def test_the_search_is_fast_over_many_hashes() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 100_000, np.uint64)
    hashes[-1] = hashes[0] ^ np.uint64(0b1011)
    began = time.process_time()
    pairs = [(int(a), int(b)) for one, other in pairs_within(hashes, 4) for a, b in zip(one, other, strict=True)]
    assert {tuple(sorted(pair)) for pair in pairs} == {(0, 99_999)}
    assert time.process_time() - began < 10


def test_many_equal_hashes_do_not_explode() -> None:
    one = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    thumbnails = np.broadcast_to(one, (1500, 32, 32, 3))
    groups = Groups(1500)
    began = time.process_time()
    assert near_duplicates(thumbnails, 4, groups, range(1500)) == 1499
    assert set(groups.roots().tolist()) == {0}
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: p.resize((p.width // 2, p.height // 2)), id="halved"),
        pytest.param(lambda p: ImageEnhance.Brightness(p).enhance(1.05), id="brighter"),
        pytest.param(lambda p: _jpeg(p, 30), id="recompressed"),
    ],
)
def test_a_changed_copy_is_recognised(photos: list[np.ndarray], change: Callable[[Image.Image], Image.Image]) -> None:
    copies = [np.asarray(change(Image.fromarray(photo))) for photo in photos]
    found = grouped(photos + copies)
    assert all(len(group) == 2 and group[1] == group[0] + len(photos) for group in found)
    # Some of the cuts are mere sky, where compression leaves little to go by.
    assert len(found) >= 21


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_no_digit_is_taken_for_another() -> None:
    scans = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    assert grouped([np.repeat(scan[..., None], 3, 2) for scan in scans]) == []


def test_colours_tell_pictures_apart() -> None:
    y, x = np.mgrid[:64, :64]
    ball = ((y - 32) ** 2 + (x - 24) ** 2 < 300)[..., None]
    red, green = (np.where(ball, np.array(colour, np.uint8), np.uint8(255)) for colour in ((200, 0, 0), (0, 102, 0)))
    hashes, _ = hash_thumbnails(np.stack([thumbnail(red), thumbnail(green)]), np.arange(2))
    assert (int(hashes[0]) ^ int(hashes[1])).bit_count() <= 4  # the hash alone would not
    assert grouped([red, green]) == []


def test_flat_pictures_are_not_near_duplicates_by_accident() -> None:
    rng = np.random.default_rng(0)
    flat = [np.full((40, 40, 3), value, np.uint8) for value in (0, 128, 129, 255)]
    noisy = [np.clip(rng.normal(200, 1, (40, 40, 3)), 0, 255).astype(np.uint8) for _ in range(20)]
    assert grouped(flat + noisy, bits=16) == []


def test_sets_are_joined_however_indirectly() -> None:
    groups = Groups(5)
    groups.join(3, 4)
    groups.join(4, 1)
    assert groups.roots().tolist() == [0, 1, 2, 1, 1]
