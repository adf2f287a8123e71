"""The dataset faults of a hostile folder, each made for real."""

from __future__ import annotations

import io
import os
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetune.artefacts import Dataset
from edgetune.data import fingerprint, inspect, prepare
from edgetune.data.hygiene import Hygiene
from edgetune.device.preprocess import decode_image_noting
from edgetune.errors import DataError
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe

Fill = Callable[..., None]
Prepared = Callable[..., Dataset]
Picture = Callable[..., Image.Image]


def look(source: Path, **keys: object) -> Hygiene:
    return inspect(DataRecipe(**{"source": str(source), "image_size": 32, **keys}), Silent())


def refused(prepared: Prepared, source: Path, **keys: object) -> DataError:
    with pytest.raises(DataError) as caught:
        prepared(source, **keys)
    assert caught.value.exit_code == 5
    return caught.value


def named(error: DataError) -> dict[str, str]:
    return {fault.where: fault.problem for fault in error.faults}


@pytest.fixture
def root(tmp_path: Path, fill: Fill) -> Path:
    fill(tmp_path / "photos", cats=6, dogs=6)
    return tmp_path / "photos"


def encoded(picture: Image.Image, kind: str, **keys: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **keys)
    return file.getvalue()


def bomb() -> bytes:
    """Return a PNG whose header claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def break_files(root: Path, picture: Picture) -> None:
    """Put files beside the good ones that cannot be decoded."""
    (root / "cats" / "truncated.jpg").write_bytes(encoded(picture(900, size=(200, 160)), "JPEG")[:-2000])
    (root / "cats" / "bomb.png").write_bytes(bomb())
    (root / "cats" / "zero.png").write_bytes(b"")
    (root / "dogs" / "text.jpg").write_text("this is no picture")
    frames = [picture(901), picture(902)]
    (root / "dogs" / "moving.gif").write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))


BROKEN = {"cats/truncated.jpg", "cats/bomb.png", "cats/zero.png", "dogs/text.jpg", "dogs/moving.gif"}


def test_every_file_that_cannot_be_decoded_is_named_at_once(root: Path, prepared: Prepared, picture: Picture) -> None:
    break_files(root, picture)
    faults = named(refused(prepared, root))
    assert set(faults) == BROKEN
    assert "truncated" in faults["cats/truncated.jpg"]
    assert "megapixel" in faults["cats/bomb.png"]
    assert "empty" in faults["cats/zero.png"]
    assert "2 frames" in faults["dogs/moving.gif"]


def test_they_can_be_left_out(root: Path, prepared: Prepared, picture: Picture) -> None:
    break_files(root, picture)
    dataset = prepared(root, corrupt="skip", image_size="auto")
    assert sum(dataset.counts.values()) == 12
    [warning] = dataset.warnings
    assert warning.startswith("5 files cannot be decoded and left out: ")
    assert set(look(root, corrupt="skip").corrupt) == BROKEN


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("turned.jpg", lambda p: encoded(p, "JPEG", exif=_exif(6))),
        ("cmyk.jpg", lambda p: encoded(p.convert("CMYK"), "JPEG")),
        ("sixteen.png", lambda p: encoded(_sixteen_bits(p), "PNG")),
        ("rgba.png", lambda p: encoded(_with_alpha(p), "PNG")),
        ("la.png", lambda p: encoded(_with_alpha(p).convert("LA"), "PNG")),
        ("palette.png", lambda p: encoded(p.quantize(16), "PNG")),
        ("palette-transparent.png", lambda p: encoded(p.quantize(16), "PNG", transparency=0)),
        ("grey.png", lambda p: encoded(p.convert("L"), "PNG")),
    ],
)
def test_a_conversion_is_counted(
    root: Path, picture: Picture, prepared: Prepared, name: str, make: Callable[[Image.Image], bytes]
) -> None:
    content = make(picture(900, size=(60, 24)))
    (root / "cats" / name).write_bytes(content)
    _, notes = decode_image_noting(content)
    assert notes
    report = look(root)
    assert not report.problems
    assert report.conversions == {note: 1 for note in notes}
    assert f"cats/{name}" in {n for split in ("train", "val", "test") for n in prepared(root).names(split)}


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _sixteen_bits(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def _with_alpha(picture: Image.Image) -> Image.Image:
    copy = picture.convert("RGBA")
    copy.putalpha(Image.linear_gradient("L").resize(copy.size))
    return copy


def test_a_turned_photograph_is_measured_as_it_is_seen(root: Path, picture: Picture) -> None:
    shutil.rmtree(root / "cats")
    (root / "cats").mkdir()
    (root / "cats" / "turned.jpg").write_bytes(encoded(picture(1, size=(100, 20)), "JPEG", exif=_exif(6)))
    report = look(root)
    assert report.heights == (32, 32, 100)
    assert report.widths == (20, 40, 40)


def test_what_is_no_image_is_passed_over_and_reported(root: Path, prepared: Prepared, tmp_path: Path) -> None:
    cats = root / "cats"
    (cats / ".DS_Store").write_bytes(b"x")
    (cats / "._0000.png").write_bytes(b"x")
    (cats / "Thumbs.db").write_bytes(b"x")
    (cats / ".hidden").mkdir()
    (root / "__MACOSX").mkdir()
    (cats / "notes.txt").write_text("x")
    (cats / "phone.HEIC").write_bytes(b"x")
    (cats / "README").write_text("x")
    (root / "top.png").write_bytes((cats / "0000.png").read_bytes())
    os.mkfifo(cats / "pipe.png")
    (cats / "dangling.png").symlink_to(tmp_path / "nothing")
    (cats / "itself.png").symlink_to(cats / "itself.png")
    (cats / "loop").symlink_to(root)
    (cats / "up").symlink_to("/")
    Path(os.fsdecode(os.fsencode(cats) + b"/caf\xe9.png")).write_bytes((cats / "0000.png").read_bytes())
    report = look(root)
    assert not report.problems
    assert report.skipped == {
        "__MACOSX": "a hidden or system file",
        "cats/.DS_Store": "a hidden or system file",
        "cats/._0000.png": "a hidden or system file",
        "cats/.hidden": "a hidden or system file",
        "cats/README": "not an image: it has no suffix",
        "cats/Thumbs.db": "a hidden or system file",
        "cats/caf\\xe9.png": "its name is not UTF-8",
        "cats/dangling.png": "a link that leads nowhere or to itself",
        "cats/itself.png": "a link that leads nowhere or to itself",
        "cats/loop": "a link to a folder above it (a loop)",
        "cats/notes.txt": "not an image by its suffix .txt",
        "cats/phone.HEIC": "images of the format .heic are not read; convert them to PNG or JPEG",
        "cats/pipe.png": "not a regular file",
        "cats/up": "a link to a folder above it (a loop)",
        "top.png": "an image at the top, beside the folders: it has no class",
    }
    assert any(warning.startswith("15 files were passed over") for warning in report.warnings)
    assert sum(prepared(root).counts.values()) == 12


def test_what_cannot_be_read_is_passed_over(root: Path, prepared: Prepared) -> None:
    # A regular file that not even the superuser can read from its beginning.
    (root / "cats" / "memory.png").symlink_to("/proc/self/mem")
    assert look(root).skipped == {"cats/memory.png": "cannot be read: Input/output error"}
    assert sum(prepared(root).counts.values()) == 12


def test_links_are_followed_and_those_that_lead_out_are_said(root: Path, tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path / "store", first=50, more=2)
    (root / "cats" / "elsewhere").symlink_to(tmp_path / "store" / "more")
    (root / "dogs" / "inside").symlink_to(root / "dogs" / "0006.png")  # no suffix: passed over
    report = look(root)
    assert report.usable == 14
    assert report.warnings[-1] == "1 link leads out of the folder, followed: cats/elsewhere"


def test_folders_below_a_class_belong_to_it(root: Path, prepared: Prepared, picture: Picture) -> None:
    (root / "cats" / "kittens" / "young").mkdir(parents=True)
    picture(70).save(root / "cats" / "kittens" / "young" / "a.png")
    assert look(root).usable == 13
    names = [name for split in ("train", "val", "test") for name in prepared(root).names(split)]
    assert "cats/kittens/young/a.png" in names


def test_faults_of_every_kind_come_in_one_error(root: Path, prepared: Prepared, picture: Picture) -> None:
    break_files(root, picture)
    (root / "empty").mkdir()
    (root / "Dogs").mkdir()
    shutil.copy(root / "dogs" / "0006.png", root / "Dogs" / "copy.png")
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff")).mkdir()
    faults = named(refused(prepared, root))
    assert set(faults) >= BROKEN
    assert faults["empty"] == "a class without images"
    assert faults["Dogs, dogs"] == "class names that differ only in case"
    assert faults["bad\\xff"] == "a folder whose name is not UTF-8 cannot name a class"
    assert faults["Dogs/copy.png, dogs/0006.png"] == "the same image under two labels"


def test_no_class_and_one_class(tmp_path: Path, prepared: Prepared, fill: Fill, picture: Picture) -> None:
    (tmp_path / "nothing").mkdir()
    [fault] = refused(prepared, tmp_path / "nothing").faults
    assert (fault.problem, fault.got) == ("no class", "no images")
    (tmp_path / "flat").mkdir()
    picture(1).save(tmp_path / "flat" / "a.png")
    [fault] = refused(prepared, tmp_path / "flat").faults
    assert (fault.problem, fault.got) == ("no class", "1 images and no folders")
    assert fault.expected.startswith("one folder of images per class")
    fill(tmp_path / "single", cats=5)
    assert named(refused(prepared, tmp_path / "single")) == {"cats": "the only class"}


def test_a_class_of_two_images_is_too_small(root: Path, prepared: Prepared, fill: Fill) -> None:
    fill(root, first=50, few=2)
    assert named(refused(prepared, root))["few"].startswith("needs at least 3 different images")


def test_the_source_must_be_a_folder(tmp_path: Path, prepared: Prepared) -> None:
    assert refused(prepared, tmp_path / "missing").message.startswith("there is no folder")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    error = refused(prepared, tmp_path / "photos.zip")
    assert error.message.endswith("is a file, not a folder")
    assert error.remedy


def test_class_names_in_two_unicode_forms(root: Path, prepared: Prepared, fill: Fill) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(root, first=50, **{composed: 4})
    fill(root, first=60, **{decomposed: 4})
    assert any("another Unicode form" in problem for problem in named(refused(prepared, root)).values())
    shutil.rmtree(root / composed)
    assert prepared(root).classes == (composed, "cats", "dogs")


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
def test_a_missing_split_is_cut_from_train(tmp_path: Path, prepared: Prepared, fill: Fill, given: str, missing: str) -> None:
    dataset = prepared(split_folder(tmp_path / "s", fill, train=10, **{given: 3}))
    assert dataset.counts[given] == 6
    assert dataset.counts["train"] + dataset.counts[missing] == 20
    assert all(name.startswith("train/") for name in dataset.names(missing))  # type: ignore[arg-type]
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

    def meddle(*arguments: object) -> object:
        # Between the two looks at the files.
        victim = root / "cats" / "0000.png"
        shutil.copy(root / "cats" / "0001.png", victim) if change == "replaced" else victim.unlink()
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "preprocessing_for", meddle)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError) as caught:
        prepare(recipe, seed=0, folder=tmp_path / "out", expected_fingerprint=expected, progress=Silent())
    problem = named(caught.value)["cats/0000.png"]
    assert problem == (
        "changed during the run" if change == "replaced" else "cannot be read any more: No such file or directory"
    )
    assert list((tmp_path / "out").iterdir()) == []
