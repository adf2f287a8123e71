from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgetune.data.splits import Unit, deal

keys = st.integers(0, 10**6).map(str)
labels = st.frozensets(st.sampled_from("abc"), min_size=1, max_size=2)
units = st.dictionaries(keys, labels, max_size=160).map(lambda m: [Unit(key=k, labels=v) for k, v in m.items()])
fractions = st.sampled_from([0.05, 0.1, 0.25, 0.4])


def single(count: int, label: str = "a", prefix: str = "") -> list[Unit]:
    return [Unit(key=f"{prefix}{number}", labels=frozenset(label)) for number in range(count)]


@given(units, st.integers(0, 9), fractions, fractions)
def test_every_class_is_in_every_split_or_is_named(dealt: list[Unit], seed: int, val: float, test: float) -> None:
    splits, faults = deal(dealt, seed=seed, val_fraction=val, test_fraction=test)
    assert len(splits) == len(dealt)
    present = {(label, split) for unit, split in zip(dealt, splits, strict=True) for label in unit.labels}
    named = {fault.where for fault in faults}
    for label in {label for unit in dealt for label in unit.labels}:
        complete = {(label, split) for split in ("train", "val", "test")} <= present
        assert complete == (label not in named)


@given(units, st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_units_does_not_matter(dealt: list[Unit], seed: int, random: object) -> None:
    mixed = list(dealt)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, _ = deal(dealt, seed=seed, val_fraction=0.1, test_fraction=0.2)
    other, _ = deal(mixed, seed=seed, val_fraction=0.1, test_fraction=0.2)
    assert dict(zip(dealt, one, strict=True)) == dict(zip(mixed, other, strict=True))


@given(st.integers(3, 200), st.integers(0, 99))
def test_three_different_images_are_enough(count: int, seed: int) -> None:
    splits, faults = deal(single(count), seed=seed, val_fraction=0.1, test_fraction=0.2)
    assert not faults
    assert set(splits) == {"train", "val", "test"}


@given(st.integers(3, 200), st.integers(0, 99))
def test_adding_an_image_moves_at_most_one_over_each_border(count: int, seed: int) -> None:
    old = single(count)
    before, _ = deal(old, seed=seed, val_fraction=0.1, test_fraction=0.2)
    after, _ = deal([*old, *single(1, prefix="new")], seed=seed, val_fraction=0.1, test_fraction=0.2)
    assert sum(one != other for one, other in zip(before, after, strict=False)) <= 2


def test_other_classes_do_not_matter() -> None:
    alone, _ = deal(single(30), seed=1, val_fraction=0.1, test_fraction=0.2)
    beside, _ = deal([*single(30), *single(70, "b", "b")], seed=1, val_fraction=0.1, test_fraction=0.2)
    assert beside[:30] == alone


def test_the_fractions_are_met() -> None:
    small = Counter(deal(single(40), seed=0, val_fraction=0.1, test_fraction=0.2)[0])
    assert small == {"train": 28, "val": 4, "test": 8}
    large = Counter(deal(single(20_000), seed=0, val_fraction=0.1, test_fraction=0.2)[0])
    assert large == {"train": 14_000, "val": 2000, "test": 4000}


def test_the_seed_makes_another_split() -> None:
    assert deal(single(100), seed=0, val_fraction=0.1, test_fraction=0.2) != deal(
        single(100), seed=1, val_fraction=0.1, test_fraction=0.2
    )


def test_too_few_images_are_named_with_their_number() -> None:
    _, faults = deal([*single(2), *single(3, "b", "b")], seed=0, val_fraction=0.1, test_fraction=0.2)
    assert [str(fault) for fault in faults] == [
        "a: needs at least 3 different images, one for each of test, train, val; "
        "got 2, near-duplicates counted once (add images)"
    ]


def test_a_fraction_of_zero_makes_no_split() -> None:
    splits, faults = deal(single(2), seed=0, val_fraction=0.5, test_fraction=0.0)
    assert sorted(splits) == ["train", "val"]
    assert not faults
