"""Manifests: what is wrong with them, and how that is said."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from edgetune.errors import DataError
from edgetune.recipe import TaskRecipe

from .manifests import REGRESSION, SPLITS, TAGS, Manifest, Prepared, look, refused, replaced


def test_every_fault_comes_with_its_row(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["label", "score", "split"], [("ab"[n % 2], n, "") for n in range(20)])
    replaced(path, "images/0002.png,a,2,", "images/nothing.png,a,2,")
    replaced(path, "images/0003.png,b,3,", "images/0003.png,b,three,")
    replaced(path, "images/0004.png,a,4,", "images/0004.png,a,4,training")
    replaced(path, "images/0005.png,b,5,", "images/0005.png,,,")
    replaced(path, "images/0006.png,a,6,", ",a,6,")
    replaced(path, "images/0007.png,b,7,", "images/0008.png,b,7,")
    replaced(path, "images/0009.png,b,9,", "images/0009.png,b")
    replaced(path, "images/0010.png,a,10,", "images,a,10,")
    replaced(path, "images/0011.png,b,11,", "images/0011.png,b,inf,")
    faults = refused(prepared, path, tasks={"label": TaskRecipe(), **REGRESSION})
    assert [fault.partition("; ")[0] for fault in faults] == [
        "row 11: another number of cells than names",
        "row 5: tasks.score: a wrong value of score",
        "row 13: tasks.score: a wrong value of score",
        "row 4: no such file",
        "row 6: an unknown split",
        "row 7: nothing is known of the image",
        "row 8: no path of an image",
        "row 10: the same path as row 9 with other targets",
        "row 12: not a regular file",
    ]
    assert faults[1].endswith("got 'three'; expected a number such as 3.5 (an empty cell means that it is not known)")
    assert faults[4].endswith("got 'training'; expected train, val or test, or an empty cell")


def test_the_same_path_twice(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["label", "split"], [("ab"[n % 2], "") for n in range(16)])
    with path.open("a", encoding="utf-8") as file:
        file.write("images/0000.png,a,\n./images/../images/0002.png,b,\nimages/0004.png,a,test\n")
    assert [fault for fault in refused(prepared, path) if "same path" in fault] == [
        "row 19: the same path as row 4 with other targets; got label is a and b; expected one row per image",
        "row 20: the same path as row 6 in another split; got test and none",
    ]
    report = look(path)
    assert report.skipped == {"row 18": "the same as row 2: images/0000.png"}
    assert report.listed == 16


def test_many_faults_of_a_kind_are_counted(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["label"], [("ab"[n % 2],) for n in range(12)])
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"gone/{n}.png,a\n" for n in range(130))
    faults = refused(prepared, path)
    assert len([fault for fault in faults if "no such file; got" in fault]) == 100
    assert "30 more rows with the same problem: no such file" in faults


@pytest.mark.parametrize(
    ("names", "cells", "tasks", "expected"),
    [
        (["label"], ["a"], {}, "tasks.label: the only class; got a; expected at least two classes"),
        (["label"], ["a", "A"], {}, "A, a: class names that differ only in case (rename or merge them)"),
        (["score"], ["1"], REGRESSION, "tasks.score: nothing can be learnt from the column score; got 1 wherever it is known"),
        (["tags"], ["0", "1"], TAGS, "tasks.tags: no names of labels; got 0 and 1"),
        (["tags"], ["|"], TAGS, "tasks.tags: no label in any row; expected names with '|' between"),
        (["tags"], ["x|y", "x"], TAGS, "tasks.tags: nothing can be learnt from a label that every image has; got x"),
        (["kind"], ["1", "2"], {"kind": TaskRecipe(kind="multi-label", columns=("kind", "image"))}, "says paths"),
    ],
)
def test_columns_from_which_nothing_can_be_learnt(
    manifest: Manifest,
    prepared: Prepared,
    names: list[str],
    cells: list[str],
    tasks: Mapping[str, TaskRecipe],
    expected: str,
) -> None:
    path = manifest(names, [(cells[n % len(cells)],) for n in range(12)])
    assert any(expected in fault for fault in refused(prepared, path, tasks=tasks))


def test_a_column_of_0_and_1_with_something_else(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["wet", "old"], [(n % 2, 2 if n == 4 else (n + 1) % 2) for n in range(12)])
    tasks = {"faults": TaskRecipe(kind="multi-label", columns=("wet", "old"))}
    [fault] = refused(prepared, path, tasks=tasks)
    assert fault.startswith("row 6: tasks.faults: a wrong value of old; got '2'; expected 0 or 1")


def test_columns_that_are_not_there(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["colour"], [("red",)] * 3)
    [fault] = refused(prepared, path)
    assert fault.startswith("no column label, class, category or target, and no [tasks]; got the columns image, colour")
    faults = refused(
        prepared, path, image_column="picture", split_column="part", tasks={"color": TaskRecipe(), "b": TaskRecipe()}
    )
    assert [fault.partition(";")[0] for fault in faults] == [
        "data.image_column: there is no column picture",
        "data.split_column: there is no column part",
        "tasks.color: there is no column color",
        "tasks.b: there is no column b",
    ]
    assert faults[2].endswith("(did you mean 'colour'?)")
    replaced(path, "image,colour", "img,label")
    assert refused(prepared, path)[0].startswith("no column image, path, file, filename or filepath with the images' paths")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"image,label\n", "has no rows"),
        (b"image;label\na.png;b\n", "separated by semicolons"),
        (b"image,label\na.png,caf\xe9\n", "is not UTF-8 text (byte 21)"),
        (b"image,label,label\na.png,b,c\n", "cannot be told apart"),
        (b'image,label\n"a.png,b\n', "is not a table of cells"),
    ],
)
def test_files_that_are_no_manifests(tmp_path: Path, prepared: Prepared, content: bytes, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        prepared(tmp_path / "list.csv")
    assert message in str(caught.value)


def test_there_is_no_such_manifest(tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(DataError, match="there is no file"):
        prepared(tmp_path / "list.csv")
    (tmp_path / "list.parquet").write_bytes(b"PAR?")
    with pytest.raises(DataError, match="is not a Parquet file"):
        prepared(tmp_path / "list.parquet")


def test_equal_and_near_equal_pictures(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["score", "tags"], [(n, "xy"[n % 2]) for n in range(24)])
    images = path.parent / "images"
    with Image.open(images / "0000.png") as original:
        original.resize((80, 64), Image.Resampling.BICUBIC).save(images / "0001.png")
    tasks = {**REGRESSION, **TAGS}
    report = look(path, tasks)
    assert report.near_duplicates == report.near_conflicts == (("images/0000.png", "images/0001.png"),)
    assert look(path, REGRESSION).near_conflicts == ()
    where = {name: split for split in SPLITS for name in prepared(path, tasks=tasks).names(split)}
    assert where["images/0000.png"] == where["images/0001.png"]
    shutil.copy(images / "0002.png", images / "0003.png")
    [fault] = refused(prepared, path, tasks=tasks)
    assert fault == (
        "images/0002.png, images/0003.png: the same image with different targets; "
        "got score is 2 and 3, tags: x is 0 and 1, tags: y is 0 and 1"
    )
    assert sum(prepared(path, tasks=tasks, conflicts="skip").counts.values()) == 22


def test_gaps_contradict_nothing(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["score", "kind"], [("" if n == 3 else n, "" if n == 2 else "ab"[n % 2]) for n in range(24)])
    shutil.copy(path.parent / "images" / "0002.png", path.parent / "images" / "0003.png")
    dataset = prepared(path, tasks={**REGRESSION, "kind": TaskRecipe()})
    assert sum(dataset.counts.values()) == 24


def test_a_task_that_a_split_knows_nothing_of(manifest: Manifest, prepared: Prepared) -> None:
    rows = [("ab"[n % 2], n if n < 20 else "", "train" if n < 20 else "test") for n in range(28)]
    [fault] = refused(prepared, manifest(["kind", "score", "split"], rows), tasks={"kind": TaskRecipe(), **REGRESSION})
    assert fault == "tasks.score: not known of any test image (fill in more cells)"


def test_a_split_without_usable_images(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["score", "split"], [(n, "test" if n == 3 else "train") for n in range(20)])
    (path.parent / "images" / "0003.png").write_bytes(b"")
    faults = refused(prepared, path, tasks=REGRESSION, corrupt="skip")
    assert faults == ["no usable test image"]


def test_a_number_taken_for_classes(manifest: Manifest, prepared: Prepared) -> None:
    faults = refused(prepared, manifest(["target"], [(n / 7,) for n in range(30)]))
    assert faults[0].startswith("tasks.label: nearly every image has a class of its own; got 30 classes in 30 rows")
