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

from edgetune.device.preprocess import decode_image_noting

from .folders import Fill, Picture, Prepared, look, named, refused


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
