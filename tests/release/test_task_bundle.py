"""A bundle of several tasks: made, read, run by its own runner, and checked again on labelled images."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetune.artefacts import Report, TaskFigures
from edgetune.device.heads import heads_to_json
from edgetune.errors import ArtefactError, DataError
from edgetune.files import write_json
from edgetune.outside import check_bundle
from edgetune.progress import Silent
from edgetune.recipe import Recipe, TaskRecipe
from edgetune.release.bundle import make_bundle
from edgetune.release.load import load_bundle
from edgetune.report.compose import compose
from edgetune.report.model_card import model_card
from edgetune.verify.limits import limits
from edgetune.verify.metrics import task_figures
from edgetune.verify.stage import measure, session_options

TASKS = {
    "colour": TaskRecipe(columns=("paint",)),
    "tags": TaskRecipe(kind="multi-label", separator=";"),
    "level": TaskRecipe(kind="regression"),
}


@pytest.fixture
def build(task_world: Any, tmp_path: Path):
    dataset, model = task_world.dataset, task_world.int8
    recipe = Recipe.load(None, ["verify.map_drop_points=2.5", "verify.rmse_increase_percent=40.0"])
    measurement = measure(
        {"int8": model}, dataset, task_world.profile, recipe.verify, folder=tmp_path / "measured", progress=Silent()
    )
    report = compose(
        title="colours",
        heads=model.heads,
        shipped="int8",
        shipped_reason="int8 was asked for",
        verdicts=(),
        figures={"int8": task_figures(measurement.logits("int8"), dataset.targets("test"), model.heads)},
        measurement=measurement,
        sections={},
    )

    def build(folder: Path, **changes: Any) -> Path:
        given = {
            "folder": folder,
            "product": "colours",
            "model": model,
            "reference": task_world.fp32,
            "dataset": dataset,
            "report": report,
            "card": model_card(report, model, provenance={}),
            "measurement": measurement,
            "profile": task_world.profile,
            "session": session_options(task_world.profile),
            "limits": asdict(limits(recipe, task_world.profile)),
            "tasks": TASKS,
            "provenance": {},
        }
        return make_bundle(**{**given, **changes}).folder

    return build


def test_the_manifest_says_what_the_columns_mean_and_what_they_reach(build: Any, task_world: Any, tmp_path: Path):
    folder = build(tmp_path / "bundle")
    manifest = load_bundle(folder)
    assert manifest["heads"] == heads_to_json(task_world.int8.heads)
    assert manifest["classes"] == json.loads((folder / "labels.json").read_text())
    assert manifest["classes"][3:] == ["colour: red", "tags: cold", "tags: warm", "level"]
    accuracy = manifest["figures"]["accuracy"]["int8"]["heads"]
    assert accuracy["colour"]["top1_percent"] == 100.0
    assert accuracy["tags"]["map_percent"] == pytest.approx(100.0)
    assert 1 < accuracy["level"]["per_value"]["level"]["rmse"] < 3
    assert not any({"per_class", "per_label", "confusion"} & set(one) for one in accuracy.values())
    assert (manifest["limits"]["map_drop_points"], manifest["limits"]["rmse_increase_percent"]) == (2.5, 40.0)
    assert manifest["tasks"]["tags"] == {"kind": "multi-label", "columns": [], "separator": ";"}
    assert set(manifest["eval_pack"]) == {"images", "images_sha256", "labels_sha256", "targets_sha256"}


def test_golden_images_carry_their_truth_and_the_scale_of_each_column(build: Any, task_world: Any, tmp_path: Path):
    table = json.loads((build(tmp_path / "bundle") / "golden" / "golden.json").read_text())
    targets = np.asarray(task_world.dataset.targets("test"))
    assert [entry["targets"] for entry in table["images"]] == targets[[0, 15, 39]].astype(float).tolist()
    assert table["heads"] == heads_to_json(task_world.int8.heads)
    assert table["scale"][:6] == [1.0] * 6
    assert table["scale"][6] == pytest.approx(targets[:, 3].astype(np.float64).std() / 2)


def test_its_own_runner_checks_it_and_answers_every_head(build: Any, tmp_path: Path):
    folder = build(tmp_path / "bundle")
    run = {"cwd": folder, "capture_output": True, "text": True, "check": False}
    checked = subprocess.run([sys.executable, "runner.pyz", "check", ".", "--quick", "--json"], **run)
    assert checked.returncode == 0, checked.stderr
    golden = json.loads(checked.stdout)["golden"]["logits"]
    assert (golden["bit_equal"], golden["max_abs"], golden["top1_changed"]) == (True, 0.0, 0)
    predicted = subprocess.run([sys.executable, "runner.pyz", "predict", ".", "golden/02.png", "--json"], **run)
    (row,) = json.loads(predicted.stdout)
    assert row["heads"]["colour"]["label"] == "red"
    assert row["heads"]["tags"]["labels"] == ["warm"]
    assert 1030 < row["heads"]["level"]["values"]["level"] < 1060


def test_the_python_of_the_card_runs_as_printed(build: Any, tmp_path: Path):
    folder = build(tmp_path / "bundle")
    card = (folder / "README.md").read_text()
    assert "colour (one of 4 classes), tags (any of 2 labels), level (a value)" in card
    code = card.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["colour blue", "tags ['cold']"]
    assert lines[6:8] == ["colour red", "tags ['warm']"]
    assert lines[8].startswith("level {'level': 104")


@pytest.mark.parametrize("name", ["map_drop_points", "rmse_increase_percent"])
def test_a_bundle_without_a_limit_that_its_heads_need_is_refused(build: Any, tmp_path: Path, name: str):
    folder = build(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["limits"][name]
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(ArtefactError, match=rf"limits\.{name}: is missing"):
        load_bundle(folder)


def test_figures_that_are_none_are_refused_by_their_place(build: Any, tmp_path: Path):
    folder = build(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["figures"]["accuracy"]["int8"]["heads"]["tags"] = {"map_percent": "high"}
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(ArtefactError, match=r"figures\.accuracy\.int8\.heads\.tags\.map_percent"):
        load_bundle(folder)


def write_images(folder: Path, task_world: Any, shift: float = 0.0, spoil: bool = False) -> Path:
    """Write the test images with a manifest of its own; spoilt, the classes and labels are those of other images."""
    dataset = task_world.dataset
    targets = np.asarray(dataset.targets("test"))
    order = np.arange(len(targets))[::-1] if spoil else np.arange(len(targets))
    folder.mkdir()
    with (folder / "images.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["image", "split", "paint", "tags", "level"])
        for split in ("train", "val", "test"):
            known = targets[order] if split == "test" else np.asarray(dataset.targets(split))
            for i, image in enumerate(dataset.images(split)):
                Image.fromarray(image).save(folder / f"{split}{i}.png")
                colour, cold, warm, level = known[i]
                words = ";".join(name for name, there in (("warm", warm), ("cold", cold)) if there) or ";"
                paint = dataset.strata[int(colour)]
                out.writerow([f"{split}{i}.png", split, paint, words, f"{level + shift:.4f}"])
    return folder / "images.csv"


def test_a_check_on_labelled_images_reaches_the_manifests_figures(build: Any, task_world: Any, tmp_path: Path):
    source = write_images(tmp_path / "photos", task_world)
    _, verdicts = check_bundle(build(tmp_path / "bundle"), str(source), quick=True, progress=Silent())
    found = {row.name: row for row in verdicts if row.kind == "accuracy"}
    assert {name: row.verdict for name, row in found.items()} == {
        "colour: int8 top-1 against the manifest": "KEPT",
        "tags: int8 mAP against the manifest": "KEPT",
        "level: int8 RMSE against the manifest": "KEPT",
    }
    # Other ways of decoding are told, not judged.
    judged = [row for row in verdicts if row.kind in ("golden", "numeric") and not row.name.startswith("golden images, ")]
    assert {row.verdict for row in judged} == {"KEPT"}


def test_a_check_on_other_images_breaks_every_head(build: Any, task_world: Any, tmp_path: Path):
    source = write_images(tmp_path / "photos", task_world, shift=30.0, spoil=True)
    _, verdicts = check_bundle(build(tmp_path / "bundle"), str(source), quick=True, progress=Silent())
    assert {row.verdict for row in verdicts if row.kind == "accuracy"} == {"BROKEN"}


def test_without_images_every_head_is_skipped(build: Any, tmp_path: Path):
    _, verdicts = check_bundle(build(tmp_path / "bundle"), None, quick=True, progress=Silent())
    assert [row.verdict for row in verdicts if row.kind == "accuracy"] == ["SKIPPED"] * 3


def test_images_of_other_labels_are_refused(build: Any, task_world: Any, tmp_path: Path):
    source = write_images(tmp_path / "photos", task_world)
    source.write_text(source.read_text().replace("cold", "frosty"))
    with pytest.raises(DataError, match=r"not the bundle's: got .*tags: frosty"):
        check_bundle(build(tmp_path / "bundle"), str(source), quick=True, progress=Silent())


def test_tasks_are_guessed_from_the_heads_where_the_manifest_has_none(build: Any, task_world: Any, tmp_path: Path):
    source = write_images(tmp_path / "photos", task_world)
    text = source.read_text().replace("paint", "colour", 1).replace(";", "|")
    source.write_text(text)
    folder = build(tmp_path / "bundle", tasks={})
    assert "tasks" not in load_bundle(folder)
    _, verdicts = check_bundle(folder, str(source), quick=True, progress=Silent())
    assert {row.verdict for row in verdicts if row.kind == "accuracy"} == {"KEPT"}


def test_the_report_of_tasks_is_the_truth(build: Any, tmp_path: Path):
    stored = Report.model_validate(json.loads((build(tmp_path / "bundle") / "report.json").read_text()))
    assert isinstance(stored.figures["int8"], TaskFigures)
    assert [one.__class__.__name__ for one in stored.figures["int8"].heads.values()] == [
        "Figures",
        "RegressionFigures",
        "MultiLabelFigures",
    ]
