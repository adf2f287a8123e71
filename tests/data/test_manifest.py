"""Manifests: what they say, what is wrong with them, and what becomes of each kind of task."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetune.artefacts import Dataset
from edgetune.data import fingerprint, inspect
from edgetune.data.hygiene import Hygiene
from edgetune.device.heads import Head
from edgetune.errors import DataError, RecipeError
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe, TaskRecipe

Prepared = Callable[..., Dataset]
Picture = Callable[..., Image.Image]
Manifest = Callable[..., Path]
SPLITS = ("train", "val", "test")
REGRESSION = {"score": TaskRecipe(kind="regression")}
TAGS = {"tags": TaskRecipe(kind="multi-label")}


@pytest.fixture
def manifest(tmp_path: Path, picture: Picture) -> Manifest:
    """Return a writer of manifests: `manifest(["label"], [("a",), …])` writes an image for each row beside it."""

    def write(names: Sequence[str], rows: Sequence[Sequence[object]], *, name: str = "set/list.csv", first: int = 0) -> Path:
        path = tmp_path / name
        (path.parent / "images").mkdir(parents=True, exist_ok=True)
        delimiter = "\t" if path.suffix == ".tsv" else ","
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["image", *names])
            for number, row in enumerate(rows, start=first):
                picture(number).save(path.parent / "images" / f"{number:04}.png")
                writer.writerow([f"images/{number:04}.png", *row])
        return path

    return write


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def look(source: Path, tasks: Mapping[str, TaskRecipe] | None = None, **keys: object) -> Hygiene:
    recipe = DataRecipe(**{"source": str(source), "image_size": 32, **keys})
    return inspect(recipe, Silent(), tasks=tasks or {})


def refused(prepared: Prepared, source: Path, **keys: object) -> list[str]:
    with pytest.raises(DataError) as caught:
        prepared(source, **keys)
    assert caught.value.exit_code == 5
    return [str(fault) for fault in caught.value.faults]


def known(dataset: Dataset) -> dict[str, tuple[float, ...]]:
    """Return every image's targets, by its name."""
    return {
        name: tuple(row)
        for split in SPLITS
        for name, row in zip(dataset.names(split), dataset.targets(split).tolist(), strict=True)  # type: ignore[arg-type]
    }


def test_one_column_of_classes_is_an_ordinary_classifier(manifest: Manifest, prepared: Prepared, tmp_path: Path) -> None:
    dataset = prepared(manifest(["class"], [("cat",), ("dog",)] * 8))
    assert dataset.is_classifier
    assert dataset.classes == dataset.strata == ("cat", "dog")
    assert dataset.heads == (Head("label", "single-label", ("cat", "dog")),)
    assert dataset.source == "list.csv"
    assert sum(dataset.counts.values()) == 16
    for split in SPLITS:
        labels = [int(Path(name).stem) % 2 for name in dataset.names(split)]
        assert dataset.labels(split).tolist() == labels
        assert not (dataset.folder / split / "targets.npy").exists()
    # The same images, classes and splits as folders are the same data.
    for number in range(16):
        folder = tmp_path / "folders" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "set" / "images" / f"{number:04}.png", folder / f"{number}.png")
    assert prepared(tmp_path / "folders").content_digest == dataset.content_digest


def test_classes_that_are_numbers_are_in_their_order(manifest: Manifest, prepared: Prepared) -> None:
    dataset = prepared(manifest(["label"], [(number % 12,) for number in range(48)]))
    assert dataset.classes == tuple(map(str, range(12)))


def test_the_task_names_the_head_and_its_column(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["breed"], [("a",), ("b",)] * 6)
    assert prepared(path, tasks={"breed": TaskRecipe()}).heads[0].name == "breed"
    assert prepared(path, tasks={"kind": TaskRecipe(columns=("breed",))}).heads[0].name == "kind"


def test_tabs_marks_of_order_and_spaces_are_no_matter(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["label"], [(" cat ",), ("dog",)] * 6, name="set/list.tsv")
    path.write_text("\ufeff" + path.read_text(encoding="utf-8") + "\n\n", encoding="utf-8")
    assert prepared(path).classes == ("cat", "dog")


def test_given_splits_are_respected_and_missing_ones_are_cut(manifest: Manifest, prepared: Prepared) -> None:
    words = ["train", "Validation", "test", ""]
    path = manifest(["label", "split"], [("ab"[n % 2], words[n // 8] if n < 24 else "") for n in range(32)])
    dataset = prepared(path)
    assert dataset.counts == {"train": 16, "val": 8, "test": 8}
    assert dataset.warnings == ("8 rows name no split, though others name all three: taken for train",)
    path = manifest(["label", "split"], [("ab"[n % 2], "test" if n < 8 else "") for n in range(32)])
    dataset = prepared(path)
    assert sorted(dataset.names("test")) == [f"images/{n:04}.png" for n in range(8)]
    assert dataset.counts["train"] + dataset.counts["val"] == 24
    assert dataset.warnings == ("no row names the split val: 10 % of the rows for train became it",)
    assert prepared(manifest(["label", "split"], [("ab"[n % 2], "train") for n in range(16)])).counts["test"] > 0


def test_several_labels_in_one_column(manifest: Manifest, prepared: Prepared) -> None:
    cells = ["red|round", "round", "|", "red | sweet", "sweet", ""]
    path = manifest(["tags", "score"], [(cells[n % 6], n) for n in range(48)])
    dataset = prepared(path, tasks={**TAGS, **REGRESSION})
    assert dataset.heads[0] == Head("tags", "multi-label", ("red", "round", "sweet"))
    assert dataset.classes == ("tags: red", "tags: round", "tags: sweet", "score")
    expected = [(1, 1, 0), (0, 1, 0), (0, 0, 0), (1, 0, 1), (0, 0, 1), (np.nan,) * 3]
    for name, row in known(dataset).items():
        number = int(Path(name).stem)
        assert np.array_equal(row, (*expected[number % 6], number), equal_nan=True)
    assert dataset.strata == ("red", "round", "sweet", "(none)", "(not known)")
    account = look(path, {**TAGS, **REGRESSION}).heads[0]
    assert sum(account.labels["red"].values()) == 16
    assert account.unknown == {"tags: red": 8, "tags: round": 8, "tags: sweet": 8}


def test_several_labels_in_columns_of_0_and_1(manifest: Manifest, prepared: Prepared) -> None:
    rows = [(n % 2, "true" if n % 3 else "False", ("", "1.0", "0")[n % 3]) for n in range(36)]
    path = manifest(["wet", "old", "torn"], rows)
    dataset = prepared(path, tasks={"faults": TaskRecipe(kind="multi-label", columns=("wet", "old", "torn"))})
    assert dataset.classes == ("wet", "old", "torn")
    assert not dataset.is_classifier
    for name, row in known(dataset).items():
        n = int(Path(name).stem)
        assert np.array_equal(row, (n % 2, bool(n % 3), (np.nan, 1, 0)[n % 3]), equal_nan=True)


def test_numbers_and_their_bins(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["score", "x"], [(n / 4, -n) for n in range(50)])
    dataset = prepared(path, tasks={"both": TaskRecipe(kind="regression", columns=("score", "x"))})
    assert dataset.classes == ("score", "x")
    assert dataset.strata[0] == "1: 0 to 2.25"
    assert dataset.strata[-1] == "5: 10 to 12.25"
    assert dataset.class_counts["test"] == (2,) * 5
    assert dataset.class_counts["val"] == (1,) * 5
    for split in SPLITS:
        targets = dataset.targets(split)
        assert (targets.dtype, targets.shape) == (np.float32, (dataset.counts[split], 2))
        assert dataset.labels(split).tolist() == [int(value // 2.5) for value in targets[:, 0]]
    spread = look(path, {"both": TaskRecipe(kind="regression", columns=("score", "x"))}).heads[0].values["x"]
    assert (spread.smallest, spread.median, spread.largest) == (-49, -24.5, 0)
    assert spread.std == pytest.approx(np.std(np.arange(50)))


def test_two_tasks_with_gaps(manifest: Manifest, prepared: Prepared) -> None:
    rows = [("ab"[n % 2] if n % 4 else "", "" if n % 4 == 1 else n) for n in range(48)]
    path = manifest(["kind", "score"], rows)
    tasks = {"kind": TaskRecipe(), **REGRESSION}
    dataset = prepared(path, tasks=tasks)
    assert dataset.classes == ("kind: a", "kind: b", "score")
    assert dataset.strata == ("a", "b", "(not known)")
    for name, row in known(dataset).items():
        n = int(Path(name).stem)
        assert np.array_equal(row, (n % 2 if n % 4 else np.nan, np.nan if n % 4 == 1 else n), equal_nan=True)
    kind, score = look(path, tasks).heads
    assert (kind.unknown, score.unknown) == ({"kind": 12}, {"score": 12})
    assert sum(kind.labels["a"].values()) == 12


def test_two_runs_give_the_same_and_targets_count(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["score"], [(n,) for n in range(30)])
    one, other = prepared(path, tasks=REGRESSION), prepared(path, tasks=REGRESSION)
    assert one.to_json() == other.to_json()
    replaced(path, "images/0007.png,7", "images/0007.png,7.5")
    assert prepared(path, tasks=REGRESSION).content_digest != one.content_digest


def test_what_the_fingerprint_covers(manifest: Manifest) -> None:
    path = manifest(["label", "split", "note"], [("ab"[n % 2], "", "x") for n in range(12)])

    def digest(tasks: Mapping[str, TaskRecipe] | None = None) -> str:
        return fingerprint(DataRecipe(source=str(path)), None, tasks or {})

    first = digest()
    replaced(path, "images/0003.png,b,,x", "images/0003.png,b,,y")
    assert digest() == first
    for old, new in ((",b,,y", ",a,,y"), ("0005.png,b,,", "0005.png,b,train,"), ("images/0001", "./images/0001")):
        before = digest()
        replaced(path, old, new)
        assert (digest() == before) == (new == "./images/0001")
    assert digest({"other": TaskRecipe(columns=("label",))}) != digest()
    before = digest()
    shutil.copy(path.parent / "images" / "0000.png", path.parent / "images" / "0001.png")
    assert digest() != before


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


def test_paths_out_of_the_folder_are_followed_and_said(
    manifest: Manifest, prepared: Prepared, picture: Picture, tmp_path: Path
) -> None:
    path = manifest(["label"], [("ab"[n % 2],) for n in range(12)])
    picture(50).save(tmp_path / "beside.png")
    picture(51).save(tmp_path / "absolute.png")
    (path.parent / "link.png").symlink_to(tmp_path / "beside.png")
    replaced(path, "images/0000.png", "../beside.png")
    replaced(path, "images/0001.png", str(tmp_path / "absolute.png"))
    replaced(path, "images/0002.png", str(path.parent / "images" / "0002.png"))
    dataset = prepared(path)
    names = {name for split in SPLITS for name in dataset.names(split)}  # type: ignore[arg-type]
    assert {"../beside.png", str(tmp_path / "absolute.png"), "images/0002.png"} < names
    assert dataset.warnings == (f"2 paths lead out of the folder, followed: ../beside.png, {tmp_path / 'absolute.png'}",)
    replaced(path, "../beside.png", "link.png")
    assert any("link.png" in warning for warning in prepared(path).warnings)


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


def test_parquet_says_what_csv_says(manifest: Manifest, prepared: Prepared) -> None:
    import pyarrow
    from pyarrow import parquet

    path = manifest(["tags", "score", "wet"], [(("x|y", "", "|", "y")[n % 4], n / 2, n % 2) for n in range(40)])
    columns = {
        "image": [f"images/{n:04}.png" for n in range(40)],
        "tags": [(["x", "y"], None, [], ["y"])[n % 4] for n in range(40)],
        "score": [n / 2 for n in range(40)],
        "wet": [bool(n % 2) for n in range(40)],
        "unread": [b"\xff"] * 40,
    }
    parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"))
    tasks = {**TAGS, **REGRESSION, "w": TaskRecipe(kind="multi-label", columns=("wet", "score"))}
    one, other = (prepared(source, tasks={**TAGS, **REGRESSION}) for source in (path, path.with_suffix(".parquet")))
    assert one.content_digest == other.content_digest
    assert one.to_json() == {**other.to_json(), "source": "list.csv"}
    assert any("a wrong value of score" in fault for fault in refused(prepared, path.with_suffix(".parquet"), tasks=tasks))


def test_equal_and_near_equal_pictures(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["score", "tags"], [(n, "xy"[n % 2]) for n in range(24)])
    images = path.parent / "images"
    with Image.open(images / "0000.png") as original:
        original.resize((80, 64), Image.Resampling.BICUBIC).save(images / "0001.png")
    tasks = {**REGRESSION, **TAGS}
    report = look(path, tasks)
    assert report.near_duplicates == report.near_conflicts == (("images/0000.png", "images/0001.png"),)
    assert look(path, REGRESSION).near_conflicts == ()
    where = {name: split for split in SPLITS for name in prepared(path, tasks=tasks).names(split)}  # type: ignore[arg-type]
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


def test_rare_labels_are_said_and_do_not_stop_a_build(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["tags"], [("rare" if n == 0 else ("x", "y", "x|y")[n % 3],) for n in range(40)])
    dataset = prepared(path, tasks=TAGS)
    assert sum(dataset.counts.values()) == 40
    assert any("shown by no" in warning and "tags: rare" in warning for warning in dataset.warnings)


def test_a_number_taken_for_classes(manifest: Manifest, prepared: Prepared) -> None:
    faults = refused(prepared, manifest(["target"], [(n / 7,) for n in range(30)]))
    assert faults[0].startswith("tasks.label: nearly every image has a class of its own; got 30 classes in 30 rows")


@pytest.mark.parametrize("source", ["folder", "digits"])
def test_other_sources_have_one_task(tmp_path: Path, prepared: Prepared, fill: Callable[..., None], source: str) -> None:
    fill(tmp_path / "photos", cats=5, dogs=5)
    path = tmp_path / "photos" if source == "folder" else source
    dataset = prepared(path, tasks={"animal": TaskRecipe()})
    assert dataset.heads[0].name == "animal"
    assert dataset.is_classifier
    assert dataset.content_digest == prepared(path).content_digest
    recipe = DataRecipe(source=str(path))
    assert fingerprint(recipe, None, {"animal": TaskRecipe()}) != fingerprint(recipe, None)
    with pytest.raises(RecipeError) as caught:
        prepared(path, tasks={"animal": TaskRecipe(columns=("a",)), **REGRESSION})
    assert [fault.where for fault in caught.value.faults] == ["tasks.animal", "tasks.score"]


def test_a_folder_keeps_the_fingerprint_that_it_always_had(tmp_path: Path) -> None:
    for label in "ab":
        for split in ("train", "test"):
            (tmp_path / "p" / split / label).mkdir(parents=True)
            for n in range(2):
                (tmp_path / "p" / split / label / f"{n}.png").write_bytes(f"{label}{split}{n}".encode())
    found = fingerprint(DataRecipe(source=str(tmp_path / "p")), None)
    assert found == "a240bc25c7bc870ab75afbba125ba14af3b461798ac51fab6d4d87c8bc0c0eb8"


def test_a_fingerprint_of_a_manifest_reads_unchanged_images_once(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(["label"], [("ab"[n % 2],) for n in range(6)])
    for image in (path.parent / "images").iterdir():
        os.utime(image, (1_600_000_000, 1_600_000_000))
    recipe = DataRecipe(source=str(path))
    first = fingerprint(recipe, tmp_path / "index.json")
    before = (tmp_path / "index.json").stat().st_ino
    assert fingerprint(recipe, tmp_path / "index.json") == first == fingerprint(recipe, None)
    assert (tmp_path / "index.json").stat().st_ino == before
