"""The data sets of torchvision, from small files of their own formats."""

from __future__ import annotations

import csv
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from edgetune.artefacts import Dataset
from edgetune.data import fingerprint, inspect
from edgetune.errors import DataError
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe

Prepared = Callable[..., Dataset]
Picture = Callable[..., Image.Image]


@pytest.fixture
def mnist(tmp_path: Path, picture: Picture) -> Path:
    """Return a folder with MNIST's four files, of 80 and 30 pictures."""
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count, first in (("train", 80, 0), ("t10k", 30, 500)):
        pixels = np.stack([np.asarray(picture(first + n, size=(28, 28)).convert("L")) for n in range(count)])
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 0x803, count, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, count) + labels.tobytes())
    return tmp_path / "root"


@pytest.fixture
def gtsrb(tmp_path: Path, picture: Picture) -> Path:
    """Return a folder with GTSRB's files: 3 classes of 8 train images, 6 test images."""
    base = tmp_path / "root" / "gtsrb"
    for label in range(3):
        folder = base / "GTSRB" / "Training" / f"{label:05}"
        folder.mkdir(parents=True)
        for number in range(8):
            picture(10 * label + number).save(folder / f"{number}.ppm")
    images = base / "GTSRB" / "Final_Test" / "Images"
    images.mkdir(parents=True)
    with (base / "GT-final_test.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Filename", "ClassId"])
        for number in range(6):
            picture(500 + number).save(images / f"{number}.ppm")
            writer.writerow([f"{number}.ppm", number % 3])
    return tmp_path / "root"


def test_pictures_in_an_archive(mnist: Path, prepared: Prepared) -> None:
    dataset = prepared("torchvision:MNIST", root=str(mnist), image_size="auto")
    assert dataset.classes[:2] == ("0 - zero", "1 - one")
    assert dataset.is_classifier
    assert dataset.counts == {"train": 70, "val": 10, "test": 30}
    assert dataset.warnings == ("the data set has no split val: 10 % of its split train became it",)
    assert dataset.preprocessing.height == 64
    given = datasets.MNIST(mnist, train=False)
    assert dataset.labels("test").tolist() == [label for _, label in given]
    assert dataset.names("test")[3] == "test/000003.png"
    file, index = dataset.golden[0]
    with Image.open(dataset.folder / "golden" / file) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(given[index][0]))


def test_a_digest_over_the_arrays_stands_for_the_pictures(mnist: Path) -> None:
    recipe = DataRecipe(source="torchvision:MNIST", root=str(mnist))
    first = fingerprint(recipe, None)
    assert fingerprint(recipe, None) == first
    for name in ("t10k-labels-idx1-ubyte", "train-images-idx3-ubyte"):
        before = fingerprint(recipe, None)
        path = mnist / "MNIST" / "raw" / name
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert fingerprint(recipe, None) != before


def test_colours_survive(tmp_path: Path, picture: Picture, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    names = ["data_batch_1", "test_batch"]
    for part, name in enumerate(names):
        pictures = [np.asarray(picture(100 * part + n, size=(32, 32))) for n in range(40)]
        content = {
            "data": np.stack([p.transpose(2, 0, 1).reshape(-1) for p in pictures]),
            "labels": [n % 10 for n in range(40)],
        }
        (base / name).write_bytes(pickle.dumps(content))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", *"bcdefghij"]}))
    # The checksums are those of the real files.
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[names[0], None]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[names[1], None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    dataset = prepared("torchvision:CIFAR10", root=str(tmp_path), image_size=32)
    assert dataset.classes == ("plane", *"bcdefghij")
    given = datasets.CIFAR10(tmp_path, train=False)
    assert np.array_equal(dataset.images("test")[7], np.asarray(given[7][0]))


def test_pictures_in_files_are_taken_as_they_are(gtsrb: Path, prepared: Prepared, tmp_path: Path) -> None:
    dataset = prepared("torchvision:GTSRB", root=str(gtsrb))
    assert dataset.classes == ("0", "1", "2")
    assert dataset.counts["test"] == 6
    name = dataset.names("train")[0]
    assert name.startswith("gtsrb/GTSRB/Training/00000/")
    file, index = dataset.golden[0]
    assert (dataset.folder / "golden" / file).read_bytes() == (gtsrb / dataset.names("test")[index]).read_bytes()
    recipe = DataRecipe(source="torchvision:GTSRB", root=str(gtsrb))
    first = fingerprint(recipe, tmp_path / "index.json")
    table = gtsrb / "gtsrb" / "GT-final_test.csv"
    table.write_text(table.read_text().replace("4.ppm;1", "4.ppm;2"))
    assert fingerprint(recipe, tmp_path / "index.json") != first


def test_one_set_is_split_by_edgetune(tmp_path: Path, picture: Picture, prepared: Prepared) -> None:
    for label in ("Forest", "River"):
        (tmp_path / "eurosat" / "2750" / label).mkdir(parents=True)
        for number in range(10):
            picture(number + 50 * (label == "River")).save(tmp_path / "eurosat" / "2750" / label / f"{number}.jpg")
    dataset = prepared("torchvision:EuroSAT", root=str(tmp_path))
    assert dataset.classes == ("Forest", "River")
    assert dataset.counts == {"train": 14, "val": 2, "test": 4}
    assert dataset.warnings == ()
    assert dataset.names("test")[0].startswith("eurosat/2750/Forest/")


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        inspect(DataRecipe(source="torchvision:FashionMNIST", root=str(tmp_path)), Silent())
    assert "the files of torchvision's FashionMNIST" in str(caught.value)
    assert "Dataset not found" in str(caught.value)
    assert "data.download = true" in str(caught.value)


@pytest.mark.parametrize("name", ["FER2013", "ImageNet"])
def test_what_torchvision_cannot_fetch_is_not_promised(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"the files of torchvision's {name}") as caught:
        inspect(DataRecipe(source=f"torchvision:{name}", root=str(tmp_path), download=True), Silent())
    assert "data.download" not in str(caught.value)


def test_the_users_cache_is_the_place_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path / "edgetune" / "torchvision")):
        fingerprint(DataRecipe(source="torchvision:MNIST"), None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CIFAR11", "did you mean CIFAR10"),
        ("cifar10", "did you mean CIFAR10"),
        ("ImageFolder", "torchvision has no data set 'ImageFolder'"),
        ("EMNIST", "it needs root, split"),
    ],
)
def test_names_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fingerprint(DataRecipe(source=f"torchvision:{name}"), None)


def test_a_data_set_of_something_else(tmp_path: Path, picture: Picture) -> None:
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (base / folder).mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    picture(1).save(base / "JPEGImages" / "a.jpg")
    picture(2).save(base / "SegmentationClass" / "a.png")
    with pytest.raises(DataError, match="has not one class for each picture"):
        fingerprint(DataRecipe(source="torchvision:VOCSegmentation", root=str(tmp_path)), None)
