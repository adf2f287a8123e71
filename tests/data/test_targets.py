"""Targets as numbers: strata for splits, contradictions; and PNG files that hold pixels."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgetune.data.png import stored_png
from edgetune.data.targets import disagreements, strata_of, target_names
from edgetune.device.heads import Head

NAN = math.nan
KIND = Head("kind", "single-label", ("a", "b"))
TAGS = Head("tags", "multi-label", ("x", "y", "z"))
SIZE = Head("size", "regression", ("size",))
values = st.one_of(st.just(NAN), st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, 1.0, 2.0]))


@given(st.lists(values, min_size=1, max_size=120))
def test_bins_share_out_the_values_in_their_order(numbers: list[float]) -> None:
    strata, names, loose = strata_of([SIZE], [(number,) for number in numbers])
    assert set(names) == set(strata) == loose
    assert len(names) <= 6
    known = sorted((number, names.index(stratum)) for number, stratum in zip(numbers, strata, strict=True) if number == number)
    assert [place for _, place in known] == sorted(place for _, place in known)
    assert all((stratum == "(not known)") == math.isnan(number) for number, stratum in zip(numbers, strata, strict=True))


@pytest.mark.parametrize(("count", "bins"), [(3, 1), (10, 2), (25, 5), (500, 5)])
def test_as_many_bins_as_the_values_are_enough_for(count: int, bins: int) -> None:
    strata, names, _ = strata_of([SIZE], [(float(number),) for number in range(count)])
    sizes = [strata.count(name) for name in names]
    assert len(sizes) == bins
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, NAN])] * 3), min_size=1, max_size=40))
def test_an_image_stands_for_the_rarest_of_its_labels(rows: list[tuple[float, ...]]) -> None:
    counts = {name: sum(row[place] == 1 for row in rows) for place, name in enumerate(TAGS.columns)}
    strata, names, loose = strata_of([TAGS], rows)
    assert set(names) == set(strata) == loose
    for row, stratum in zip(rows, strata, strict=True):
        shown = [counts[name] for place, name in enumerate(TAGS.columns) if row[place] == 1]
        if shown:
            assert counts[stratum] == min(shown)
        else:
            assert stratum == ("(not known)" if all(map(math.isnan, row)) else "(none)")


def test_the_first_head_makes_the_strata() -> None:
    strata, names, loose = strata_of([KIND, SIZE], [(1.0, 5.0), (NAN, 6.0), (1.0, NAN)])
    assert strata == ["b", "(not known)", "b"]
    assert names == ("a", "b", "(not known)")
    assert loose == {"(not known)"}


def test_contradictions_are_named() -> None:
    heads = [KIND, TAGS, SIZE]
    assert target_names(heads) == ["kind", "tags: x", "tags: y", "tags: z", "size"]
    one, other = (0.0, 1.0, NAN, 0.0, 2.5), (1.0, 1.0, 1.0, 1.0, 3.0)
    assert disagreements(heads, [one, other]) == ["kind is a and b", "tags: z is 0 and 1", "size is 2.5 and 3"]
    assert disagreements(heads, [one, other], values=False) == ["kind is a and b", "tags: z is 0 and 1"]
    assert disagreements(heads, [one, (NAN,) * 5, one]) == []


@pytest.mark.parametrize(("width", "channels"), [(8, 1), (200, 3)])
def test_a_stored_png_holds_its_pixels(width: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, width, channels), np.uint8)
    with Image.open(io.BytesIO(stored_png(pixels.tobytes(), width, 150, channels))) as picture:
        picture.load()
        assert np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)
