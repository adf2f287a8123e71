"""Grey images and arrays of any number of channels through the stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgetune.artefacts import Dataset
from edgetune.data import inspect
from edgetune.data.duplicates import thumbnail
from edgetune.device.preprocess import Preprocessing, fit, image_tensor
from edgetune.errors import DataError
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe

Prepared = Callable[..., Dataset]


def blotches(number: int, channels: int, size: tuple[int, int] = (40, 32)) -> np.ndarray:
    """Return uint8 `[40, 32, channels]`, unlike that of any other number."""
    blocks = np.random.default_rng(number).integers(0, 256, (8, 8, channels), np.uint8)
    return np.kron(blocks, np.ones((size[0] // 8, size[1] // 8, 1), np.uint8))


def fill_arrays(root: Path, channels: int, count: int = 12) -> None:
    for start, label in ((0, "rust"), (100, "healthy")):
        (root / label).mkdir(parents=True)
        for number in range(count):
            array = blotches(start + number, channels)
            np.save(root / label / f"{number:02}.npy", array[..., 0] if channels == 1 and number % 2 else array)


def faults_of(call: Callable[[], object]) -> dict[str, str]:
    with pytest.raises(DataError) as caught:
        call()
    return {fault.where: fault.problem for fault in caught.value.faults}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_folder_of_images_becomes_grey(tmp_path: Path, fill: Callable[..., None], prepared: Prepared, suffix: str) -> None:
    root = tmp_path / "images"
    fill(root, cats=12, dogs=12)
    for path in root.rglob("*.png") if suffix == "jpg" else ():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    dataset = prepared(root, channels=1)
    assert dataset.preprocessing == Preprocessing(32, 32, channels=1)
    assert dataset.images("train").shape == (dataset.counts["train"], 32, 32, 1)
    assert dataset.source_images().shape == (dataset.counts["train"], 38, 38, 1)
    for name, image in zip(dataset.names("test"), dataset.images("test"), strict=True):
        np.testing.assert_array_equal(image_tensor(root / name, dataset.preprocessing), image)
    if suffix == "png":
        picture = Image.open(root / dataset.names("test")[0]).convert("L")
        expected = fit(np.asarray(picture)[..., None], dataset.preprocessing)
        np.testing.assert_array_equal(dataset.images("test")[0], expected)
    for name, index in dataset.golden:
        golden = image_tensor(dataset.folder / "golden" / name, dataset.preprocessing)
        np.testing.assert_array_equal(golden, dataset.images("test")[index])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_folder_of_arrays(tmp_path: Path, prepared: Prepared, channels: int) -> None:
    root = tmp_path / "scans"
    fill_arrays(root, channels)
    dataset = prepared(root, channels=channels)
    assert sum(dataset.counts.values()) == 24
    assert dataset.images("val").shape[1:] == (32, 32, channels)
    assert dataset.source_images().shape[1:] == (38, 38, channels)
    for name, image in zip(dataset.names("train"), dataset.images("train"), strict=True):
        array = np.load(root / name)
        np.testing.assert_array_equal(fit(array.reshape(40, 32, channels), dataset.preprocessing), image)
    assert {Path(name).suffix for name, _ in dataset.golden} == {".npy"}
    for name, index in dataset.golden:
        golden = image_tensor(dataset.folder / "golden" / name, dataset.preprocessing)
        np.testing.assert_array_equal(golden, dataset.images("test")[index])


def test_every_array_that_cannot_be_used_is_named(tmp_path: Path, prepared: Prepared) -> None:
    root = tmp_path / "scans"
    fill_arrays(root, 5)
    np.save(root / "rust" / "bands.npy", blotches(1, 4))
    np.save(root / "rust" / "floats.npy", blotches(2, 5).astype(np.float32))
    np.save(root / "rust" / "objects.npy", np.array([{}], dtype=object))
    (root / "rust" / "cut.npy").write_bytes((root / "rust" / "00.npy").read_bytes()[:-7])
    Image.fromarray(blotches(3, 3)).save(root / "rust" / "preview.png")
    faults = faults_of(lambda: prepared(root, channels=5))
    assert faults == {
        "rust/bands.npy": "is an array of uint8 [40, 32, 4], expected uint8 [H, W, 5]",
        "rust/floats.npy": "is an array of float32 [40, 32, 5], expected uint8 [H, W, 5]",
        "rust/objects.npy": "is an array of object [1], expected uint8 [H, W, 5]",
        "rust/cut.npy": "is truncated (6393 of 6400 bytes of pixels)",
        "rust/preview.png": "is not an .npy file, expected one with an array uint8 [H, W, 5]",
    }
    assert sum(prepared(root, channels=5, corrupt="skip").counts.values()) == 24


def test_beside_rgb_images_arrays_are_passed_over(tmp_path: Path, fill: Callable[..., None], prepared: Prepared) -> None:
    root = tmp_path / "images"
    fill(root, cats=12, dogs=12)
    before = prepared(root)
    np.save(root / "cats" / "mask.npy", np.zeros((32, 40), np.uint8))
    assert prepared(root).content_digest == before.content_digest
    report = inspect(DataRecipe(source=str(root)), Silent())
    reason = "an array: .npy files are images where data.channels is not 3, or where a manifest names them"
    assert report.skipped == {"cats/mask.npy": reason}


def test_a_manifest_may_name_arrays_of_three_channels(tmp_path: Path, prepared: Prepared) -> None:
    fill_arrays(tmp_path, 3)
    rows = [f"{label}/{number:02}.npy,{label}" for label in ("rust", "healthy") for number in range(12)]
    (tmp_path / "images.csv").write_text("\n".join(["image,label", *rows]))
    dataset = prepared(tmp_path / "images.csv")
    assert dataset.images("train").shape == (dataset.counts["train"], 32, 32, 3)
    for name, image in zip(dataset.names("test"), dataset.images("test"), strict=True):
        np.testing.assert_array_equal(image_tensor(tmp_path / name, dataset.preprocessing), image)


def test_the_size_of_arrays_is_read_from_their_headers(tmp_path: Path, prepared: Prepared) -> None:
    root = tmp_path / "scans"
    fill_arrays(root, 2)
    np.save(root / "rust" / "wide.npy", blotches(7, 2, (240, 320)))
    # The median of the shorter sides is 32.
    assert prepared(root, channels=2, image_size="auto").preprocessing.shape == (64, 64, 2)


def test_copies_of_arrays_stay_in_one_split(tmp_path: Path, prepared: Prepared) -> None:
    root = tmp_path / "scans"
    fill_arrays(root, 5, count=20)
    for number in range(8):
        near = np.minimum(blotches(number, 5), 254) + 1
        np.save(root / "rust" / f"again-{number:02}.npy", near)
    dataset = prepared(root, channels=5)
    where = {Path(name).stem: split for split in dataset.counts for name in dataset.names(split) if name.startswith("rust")}
    assert all(where[f"{number:02}"] == where[f"again-{number:02}"] for number in range(8))
    assert len(set(where.values())) == 3


@given(channels=st.integers(1, 9), number=st.integers(0, 20))
def test_a_thumbnail_shows_every_channel(channels: int, number: int) -> None:
    image = blotches(number, channels)
    small = thumbnail(image)
    assert (small.dtype, small.shape) == (np.uint8, (32, 32, 3))
    for channel in range(channels):
        changed = image.copy()
        changed[..., channel] = 255 - changed[..., channel]
        assert not np.array_equal(thumbnail(changed), small)


def test_a_thumbnail_of_grey_is_grey() -> None:
    grey = blotches(0, 1)
    np.testing.assert_array_equal(thumbnail(grey), thumbnail(np.repeat(grey, 3, axis=2)))
