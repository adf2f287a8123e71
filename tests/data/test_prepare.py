from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from edgetune.artefacts import Dataset
from edgetune.data import fingerprint, prepare
from edgetune.data.digits import grey_png
from edgetune.device.preprocess import Preprocessing, decode_image_noting, fit
from edgetune.errors import UsageError
from edgetune.files import file_table
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe

Fill = Callable[..., None]
Prepared = Callable[..., Dataset]
SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path: Path, fill: Fill) -> Path:
    fill(tmp_path / "photos", birds=12, cats=12, dogs=12)
    return tmp_path / "photos"


def test_the_arrays_are_what_the_device_would_make_of_the_files(root: Path, prepared: Prepared) -> None:
    dataset = prepared(root, crop_fraction=0.9)
    assert dataset.preprocessing == Preprocessing(height=32, width=32, crop_fraction=0.9)
    assert dataset.source_size == (38, 38)  # 32 * 8 / 7, rounded up to an even number
    larger = Preprocessing(height=38, width=38)
    for split in SPLITS:
        names, images, labels = dataset.names(split), dataset.images(split), dataset.labels(split)
        assert isinstance(images, np.memmap)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert len(names) == len(images) == len(labels) == dataset.counts[split]
        for place, name in enumerate(names):
            decoded, _ = decode_image_noting((root / name).read_bytes())
            assert np.array_equal(images[place], fit(decoded, dataset.preprocessing))
            assert dataset.classes[labels[place]] == name.split("/")[0]
            if split == "train":
                assert np.array_equal(dataset.source_images()[place], fit(decoded, larger))
        assert Counter(labels.tolist()) == dict(enumerate(dataset.class_counts[split]))
    assert sorted(path.name for path in dataset.folder.iterdir()) == ["golden", "report.json", "test", "train", "val"]


def test_two_runs_give_the_same_bytes(root: Path, prepared: Prepared) -> None:
    one, other = prepared(root), prepared(root)
    assert one.to_json() == other.to_json()
    assert file_table(one.folder) == file_table(other.folder)


def test_golden_images_are_encoded_test_images_of_every_class(root: Path, prepared: Prepared) -> None:
    dataset = prepared(root)
    names, images, labels = dataset.names("test"), dataset.images("test"), dataset.labels("test")
    assert len(dataset.golden) == min(8, len(names))
    assert len({index for _, index in dataset.golden}) == len(dataset.golden)
    assert {int(labels[index]) for _, index in dataset.golden} == {0, 1, 2}
    for file, index in dataset.golden:
        content = (dataset.folder / "golden" / file).read_bytes()
        assert content == (root / names[index]).read_bytes()
        assert np.array_equal(fit(decode_image_noting(content)[0], dataset.preprocessing), images[index])


def test_large_files_are_golden_only_if_they_must(tmp_path: Path, fill: Fill, prepared: Prepared) -> None:
    for split, first, count in (("train", 0, 3), ("val", 100, 1), ("test", 200, 6)):
        fill(tmp_path / "s" / split, first=first, cats=count, dogs=count)
    noise = np.random.default_rng(0).integers(0, 256, (2, 320, 320, 3), np.uint8)
    for number in range(2):
        Image.fromarray(noise[number]).save(tmp_path / "s" / "test" / "cats" / f"large-{number}.png")
    dataset = prepared(tmp_path / "s")
    assert len(dataset.golden) == 8
    assert not any("large" in dataset.names("test")[index] for _, index in dataset.golden)


def test_renaming_and_adding_files_moves_no_other(root: Path, prepared: Prepared, fill: Fill) -> None:
    def where() -> dict[str, str]:
        dataset = prepared(root)
        return {hashlib.sha256((root / n).read_bytes()).hexdigest(): s for s in SPLITS for n in dataset.names(s)}  # type: ignore[arg-type]

    before = where()
    for number, path in enumerate(sorted((root / "cats").iterdir())):
        path.rename(path.with_name(f"renamed-{len(before) - number}.png"))
    assert where() == before
    fill(root, first=500, fish=9)
    after = where()
    assert len(after) == 45
    assert {digest: after[digest] for digest in before} == before


def test_the_seed_and_the_content_make_the_split(root: Path, prepared: Prepared) -> None:
    assert prepared(root, seed=1).names("test") != prepared(root, seed=2).names("test")
    one = prepared(root)
    shutil.move(root / "cats" / "0012.png", root / "dogs" / "0012.png")
    assert prepared(root).content_digest != one.content_digest


def test_the_report_lies_beside_the_arrays(root: Path, prepared: Prepared) -> None:
    report = json.loads((prepared(root).folder / "report.json").read_text())
    assert report["listed"] == report["usable"] == 36
    assert report["problems"] == []
    assert report["classes"]["cats"]["train"] == 36 // 3 - report["classes"]["cats"]["val"] - report["classes"]["cats"]["test"]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(300, 224), (400, 500), (100, 90)], 224),
        ([(2000, 223), (100, 100), (500, 500)], 224),
        ([(97, 300), (97, 97), (10, 10)], 128),
        ([(96, 300), (96, 97), (10, 10)], 96),
        ([(20, 20), (20, 20), (500, 500)], 64),
    ],
)
def test_the_size_follows_the_median_shorter_side(
    tmp_path: Path, picture: Callable[..., Image.Image], sizes: list[tuple[int, int]], expected: int
) -> None:
    from edgetune.data import inspect

    for label in range(2):
        (tmp_path / "s" / str(label)).mkdir(parents=True)
        for number, size in enumerate(sizes):
            picture(10 * label + number, size).save(tmp_path / "s" / str(label) / f"{number}.png")
    assert inspect(DataRecipe(source=str(tmp_path / "s")), Silent()).image_size == expected


def test_the_digits(prepared: Prepared) -> None:
    dataset = prepared("digits", image_size="auto")
    assert dataset.classes == tuple("0123456789")
    assert dataset.preprocessing == Preprocessing(height=48, width=48)
    assert dataset.source_size == (56, 56)
    assert sum(dataset.counts.values()) == 1797
    assert abs(dataset.counts["test"] - 359) < 40
    assert abs(dataset.counts["val"] - 180) < 30
    scans = load_digits()
    place = dataset.names("val").index(name := dataset.names("val")[7])
    number = int(name.removeprefix("digits/").removesuffix(".png"))
    grey = np.round(scans.images[number] * 255 / 16).astype(np.uint8)
    assert np.array_equal(dataset.images("val")[place], fit(np.repeat(grey[..., None], 3, 2), dataset.preprocessing))
    assert dataset.labels("val")[place] == scans.target[number]
    assert len(dataset.golden) == 8
    assert dataset.warnings == ()


def test_a_digit_is_a_png_file_with_fixed_bytes() -> None:
    content = grey_png(bytes(range(64)), 8, 8)
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.mode, picture.tobytes()) == ("L", bytes(range(64)))
    assert hashlib.sha256(content).hexdigest() == "b0eb4945328da0f6a155a9246905713af8277632e60ed7ee9bca9bcdf82977de"


def test_a_full_disk_is_said(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    recipe = DataRecipe(source=str(root), image_size=32)
    expected = fingerprint(recipe, None)
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageError, match="no space left"):
        prepare(recipe, seed=0, folder=tmp_path / "out", expected_fingerprint=expected, progress=Silent())
    assert list((tmp_path / "out").iterdir()) == []
