"""Splits that the folders themselves give, copies of images among them, and images that change while they are read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgetune.artefacts import Split
from edgetune.data import fingerprint, prepare
from edgetune.errors import DataError
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe

from .folders import Fill, Prepared, look, named, refused


def split_folder(root: Path, fill: Fill, **splits: int) -> Path:
    for number, (split, count) in enumerate(splits.items()):
        fill(root / split, first=1000 * number, cats=count, dogs=count)
    return root


def test_given_splits_are_respected(tmp_path: Path, prepared: Prepared, fill: Fill) -> None:
    dataset = prepared(split_folder(tmp_path / "s", fill, train=6, valid=2, test=3))
    assert dataset.counts == {"train": 12, "val": 4, "test": 6}
    assert all(name.startswith("valid/") for name in dataset.names("val"))
    assert dataset.warnings == ()


@pytest.mark.parametrize(("given", "missing"), [("test", "val"), ("val", "test")])
def test_a_missing_split_is_cut_from_train(
    tmp_path: Path, prepared: Prepared, fill: Fill, given: Split, missing: Split
) -> None:
    dataset = prepared(split_folder(tmp_path / "s", fill, train=10, **{given: 3}))
    assert dataset.counts[given] == 6
    assert dataset.counts["train"] + dataset.counts[missing] == 20
    assert all(name.startswith("train/") for name in dataset.names(missing))
    assert dataset.warnings[0].startswith(f"there is no {missing}/")


def test_classes_must_be_in_train_and_test(tmp_path: Path, prepared: Prepared, fill: Fill) -> None:
    root = split_folder(tmp_path / "s", fill, train=4, val=2, test=2)
    fill(root / "test", first=5000, birds=2)
    fill(root / "train", first=6000, fish=2)
    faults = named(refused(prepared, root))
    assert faults == {"birds": "a class without usable images in train", "fish": "a class without usable images in test"}


def test_odd_folders_beside_the_splits(tmp_path: Path, prepared: Prepared, fill: Fill) -> None:
    root = split_folder(tmp_path / "s", fill, train=4, val=2, valid=2, test=2)
    (root / "annotations").mkdir()
    fill(root, first=7000, bus=3)
    faults = named(refused(prepared, root))
    assert faults["bus"] == "a folder of images beside train/"
    assert faults["valid"] == "a second folder for the val split"
    assert look(root).skipped == {"annotations": "a folder without images beside train/"}


def test_test_without_train(tmp_path: Path, prepared: Prepared, fill: Fill) -> None:
    error = refused(prepared, split_folder(tmp_path / "s", fill, val=4, test=4))
    assert any(fault.problem == "no folder train/ with class folders in it" for fault in error.faults)


def test_train_can_be_a_class(tmp_path: Path, prepared: Prepared, fill: Fill) -> None:
    fill(tmp_path / "vehicles", train=5, bus=5)
    assert prepared(tmp_path / "vehicles").classes == ("bus", "train")


def test_copies_across_given_splits(tmp_path: Path, prepared: Prepared, fill: Fill) -> None:
    root = split_folder(tmp_path / "s", fill, train=6, val=3, test=4)
    shutil.copy(root / "train" / "cats" / "0000.png", root / "test" / "cats" / "copy.png")
    with Image.open(root / "train" / "dogs" / "0006.png") as original:
        original.resize((80, 64), Image.Resampling.BICUBIC).save(root / "test" / "dogs" / "larger.png")
    dataset = prepared(root)
    assert dataset.counts["test"] == 10
    [warning] = dataset.warnings
    assert warning.startswith(
        "2 test images have a copy (1 equal, 1 nearly) in train: accuracy is flattered by up to 20.0 points"
    )
    [leak] = look(root).leakage
    assert leak.pairs == (
        ("test/cats/copy.png", "train/cats/0000.png"),
        ("test/dogs/larger.png", "train/dogs/0006.png"),
    )
    faults = named(refused(prepared, root, leakage="refuse"))
    assert set(faults) == {"test/cats/copy.png", "test/dogs/larger.png"}


def test_copies_stay_in_one_split(tmp_path: Path, prepared: Prepared, fill: Fill) -> None:
    root = tmp_path / "s"
    fill(root, cats=8, dogs=8)
    for label, first in (("cats", 0), ("dogs", 8)):
        for number in range(first, first + 8):
            path = root / label / f"{number:04}.png"
            shutil.copy(path, root / label / f"equal-{number}.png")
            with Image.open(path) as original:
                original.resize((80, 64), Image.Resampling.BICUBIC).save(root / label / f"near-{number}.png")
    dataset = prepared(root)
    where = {name: split for split in ("train", "val", "test") for name in dataset.names(split)}
    assert len(where) == 48
    for label, first in (("cats", 0), ("dogs", 8)):
        for n in range(first, first + 8):
            assert len({where[f"{label}/{n:04}.png"], where[f"{label}/equal-{n}.png"], where[f"{label}/near-{n}.png"]}) == 1
    assert len(look(root).near_duplicates) == 16


def test_the_same_image_under_two_labels(root: Path, prepared: Prepared) -> None:
    shutil.copy(root / "cats" / "0000.png", root / "dogs" / "cat.png")
    error = refused(prepared, root)
    [fault] = error.faults
    assert fault.where == "cats/0000.png, dogs/cat.png"
    assert fault.got == "cats and dogs"
    dataset = prepared(root, conflicts="skip")
    names = [name for split in ("train", "val", "test") for name in dataset.names(split)]
    assert len(names) == 11
    assert "cats/0000.png" not in names
    assert dataset.warnings[0].startswith("2 images with the same picture under another label")


def test_a_near_duplicate_under_two_labels_is_only_reported(root: Path, prepared: Prepared) -> None:
    with Image.open(root / "cats" / "0000.png") as original:
        original.resize((80, 64), Image.Resampling.BICUBIC).save(root / "dogs" / "cat.png")
    assert look(root).near_conflicts == (("cats/0000.png", "dogs/cat.png"),)
    dataset = prepared(root)
    where = {name: split for split in ("train", "val", "test") for name in dataset.names(split)}
    assert where["cats/0000.png"] == where["dogs/cat.png"]


def test_a_file_that_changed_since_the_fingerprint_stops_the_run(root: Path, tmp_path: Path) -> None:
    recipe = DataRecipe(source=str(root), image_size=32)
    expected = fingerprint(recipe, None)
    shutil.copy(root / "cats" / "0001.png", root / "cats" / "0000.png")
    with pytest.raises(DataError, match="changed during the run"):
        prepare(recipe, seed=0, folder=tmp_path, expected_fingerprint=expected, progress=Silent())


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_file_that_changes_between_digest_and_decoding_stops_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    from edgetune.data import preparing

    recipe = DataRecipe(source=str(root), image_size=32)
    expected = fingerprint(recipe, None)
    original = preparing.preprocessing_for

    def meddle(*arguments: Any) -> Any:
        # Between the two looks at the files.
        victim = root / "cats" / "0000.png"
        shutil.copy(root / "cats" / "0001.png", victim) if change == "replaced" else victim.unlink()
        return original(*arguments)

    monkeypatch.setattr(preparing, "preprocessing_for", meddle)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError) as caught:
        prepare(recipe, seed=0, folder=tmp_path / "out", expected_fingerprint=expected, progress=Silent())
    problem = named(caught.value)["cats/0000.png"]
    assert problem == (
        "changed during the run" if change == "replaced" else "cannot be read any more: No such file or directory"
    )
    assert list((tmp_path / "out").iterdir()) == []
