"""Manifests: what they say, and what becomes of each kind of task."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgetune.data import fingerprint
from edgetune.device.heads import Head
from edgetune.errors import RecipeError
from edgetune.recipe import DataRecipe, TaskRecipe

from .manifests import REGRESSION, SPLITS, TAGS, Manifest, Picture, Prepared, known, look, refused, replaced


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
    names = {name for split in SPLITS for name in dataset.names(split)}
    assert {"../beside.png", str(tmp_path / "absolute.png"), "images/0002.png"} < names
    assert dataset.warnings == (f"2 paths lead out of the folder, followed: ../beside.png, {tmp_path / 'absolute.png'}",)
    replaced(path, "../beside.png", "link.png")
    assert any("link.png" in warning for warning in prepared(path).warnings)


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


def test_rare_labels_are_said_and_do_not_stop_a_build(manifest: Manifest, prepared: Prepared) -> None:
    path = manifest(["tags"], [("rare" if n == 0 else ("x", "y", "x|y")[n % 3],) for n in range(40)])
    dataset = prepared(path, tasks=TAGS)
    assert sum(dataset.counts.values()) == 40
    assert any("shown by no" in warning and "tags: rare" in warning for warning in dataset.warnings)


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
