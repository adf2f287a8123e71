"""Images without labels: what is taken, and what is kept away from validation and test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetune.artefacts import Dataset
from edgetune.data import fingerprint, inspect, prepare
from edgetune.device.preprocess import Preprocessing, decode_image_noting, fit
from edgetune.errors import DataError
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe

Fill = Callable[..., None]
Prepared = Callable[..., Dataset]
Picture = Callable[..., Image.Image]


@pytest.fixture
def roots(tmp_path: Path, fill: Fill, picture: Picture) -> tuple[Path, Path]:
    """Return labelled images with their own splits, and a folder of others, in no order."""
    for number, (split, count) in enumerate((("train", 6), ("val", 3), ("test", 3))):
        fill(tmp_path / "photos" / split, first=100 * number, cats=count, dogs=count)
    more = tmp_path / "more"
    (more / "deep" / "down").mkdir(parents=True)
    for number in range(5):
        picture(1000 + number).save(more / ("deep/down" if number % 2 else "") / f"{number}.png")
    (more / "notes.txt").write_text("x")
    return tmp_path / "photos", more


def test_they_are_decoded_at_the_size_that_augmentation_cuts_from(roots: tuple[Path, Path], prepared: Prepared) -> None:
    photos, more = roots
    dataset, without = prepared(photos, unlabelled=str(more)), prepared(photos)
    assert dataset.unlabelled == 5
    images = dataset.unlabelled_images()
    assert images.shape == (5, *dataset.source_size, 3)
    files = sorted(more.rglob("*.png"), key=lambda path: path.relative_to(more).as_posix())
    larger = Preprocessing(height=38, width=38)
    for image, file in zip(images, files, strict=True):
        assert np.array_equal(image, fit(decode_image_noting(file.read_bytes())[0], larger))
    assert (without.unlabelled, (without.folder / "unlabelled").exists()) == (0, False)
    assert dataset.content_digest != without.content_digest
    assert [dataset.names(split) for split in ("train", "val", "test")] == [  # type: ignore[arg-type]
        without.names(split)  # type: ignore[arg-type]
        for split in ("train", "val", "test")
    ]
    report = json.loads((dataset.folder / "report.json").read_text())
    assert (report["listed"], report["unlabelled"]) == (24, 5)
    assert report["skipped"] == {"unlabelled/notes.txt": "not an image by its suffix .txt"}


def test_copies_of_held_images_are_left_out_and_said(roots: tuple[Path, Path], prepared: Prepared) -> None:
    photos, more = roots
    shutil.copy(photos / "test" / "cats" / "0200.png", more / "equal.png")
    with Image.open(photos / "val" / "dogs" / "0103.png") as original:
        original.resize((80, 64), Image.Resampling.BICUBIC).save(more / "near.png")
    shutil.copy(photos / "train" / "cats" / "0000.png", more / "of-train.png")
    dataset = prepared(photos, unlabelled=str(more))
    assert dataset.unlabelled == 6
    report = inspect(DataRecipe(source=str(photos), unlabelled=str(more), image_size=32), Silent())
    assert report.unlabelled == 6
    assert report.unlabelled_copies == {
        "unlabelled/equal.png": "test/cats/0200.png",
        "unlabelled/near.png": "val/dogs/0103.png",
    }
    assert report.leakage == ()
    assert dataset.warnings[-1].startswith("2 unlabelled images are copies of such images, left out: unlabelled/equal.png")


def test_only_copies_are_nothing_to_learn_from(roots: tuple[Path, Path], prepared: Prepared, tmp_path: Path) -> None:
    photos, _ = roots
    dataset = prepared(photos, unlabelled=str(photos / "test"))
    assert dataset.unlabelled == 0
    assert not (dataset.folder / "unlabelled").exists()
    assert dataset.warnings[-1].startswith("6 unlabelled images are copies")


def test_files_that_cannot_be_decoded_follow_the_recipe(roots: tuple[Path, Path], prepared: Prepared) -> None:
    photos, more = roots
    (more / "broken.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        prepared(photos, unlabelled=str(more))
    assert [fault.where for fault in caught.value.faults] == ["unlabelled/broken.png"]
    dataset = prepared(photos, unlabelled=str(more), corrupt="skip")
    assert dataset.unlabelled == 5
    assert any("cannot be decoded" in warning for warning in dataset.warnings)


def test_they_are_part_of_the_fingerprint(roots: tuple[Path, Path], tmp_path: Path) -> None:
    photos, more = roots
    recipe = DataRecipe(source=str(photos), unlabelled=str(more), image_size=32)
    first = fingerprint(recipe, tmp_path / "index.json")
    assert first == fingerprint(recipe, tmp_path / "index.json") == fingerprint(recipe, None)
    assert first != fingerprint(DataRecipe(source=str(photos)), None)
    (more / "0.png").write_bytes((more / "2.png").read_bytes())
    assert fingerprint(recipe, tmp_path / "index.json") != first
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="changed during the run"):
        prepare(recipe, seed=0, folder=tmp_path / "out", expected_fingerprint=first, progress=Silent())
    digits = DataRecipe(unlabelled=str(more))
    assert fingerprint(digits, None) != fingerprint(DataRecipe(), None)


@pytest.mark.parametrize("content", [None, {}])
def test_no_folder_and_an_empty_one(roots: tuple[Path, Path], tmp_path: Path, content: object, prepared: Prepared) -> None:
    if content is not None:
        (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"data\.unlabelled"):
        prepared(roots[0], unlabelled=str(tmp_path / "none"))
