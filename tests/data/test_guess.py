"""What `edgetune init` and `edgetune data` make of a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from edgetune.cli.main import main
from edgetune.data.guess import guess_tasks
from edgetune.data.table import read_table
from edgetune.recipe import DataRecipe, Recipe, TaskRecipe

Capture = pytest.CaptureFixture[str]
Picture = Callable[..., Image.Image]

HEADER = "image,split,label,price (EUR),tags,wet,torn,sort,id,remark,empty\n"


def line(number: int) -> str:
    tags = ("x|y", "y", "|")[number % 3]
    return (
        f"{number}.png,,{'ab'[number % 2]},{number / 2},{tags},{number % 2},{number // 2 % 2},"
        f"{('s', 't')[number // 3 % 2]},{number},remark {number},\n"
    )


@pytest.fixture
def manifest(tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "list.csv").write_text(HEADER + "".join(map(line, range(24))))
    return tmp_path / "list.csv"


EXPECTED = {
    "label": TaskRecipe(columns=("label",)),
    "price-EUR": TaskRecipe(kind="regression", columns=("price (EUR)",)),
    "tags": TaskRecipe(kind="multi-label", columns=("tags",), separator="|"),
    "sort": TaskRecipe(columns=("sort",)),
    "labels": TaskRecipe(kind="multi-label", columns=("wet", "torn")),
}


def test_columns_are_guessed_by_name_and_content(manifest: Path) -> None:
    guess = guess_tasks(read_table(manifest), DataRecipe(source=str(manifest)))
    assert guess.tasks == EXPECTED
    assert guess.notes == (
        "image: the images' paths",
        "split: the splits",
        "label: 2 classes",
        "price (EUR): a number",
        "tags: several labels, with '|' between",
        "sort: 2 classes",
        "id: left out: by its name it counts or names images",
        "remark: left out: text with 24 different values",
        "empty: left out: all its cells are alike",
        "wet, torn: 0 or 1, taken for a label each",
    )


def test_init_writes_a_recipe_that_data_can_use(manifest: Path, capsys: Capture) -> None:
    assert main(["init", "list.csv", "--target", "rk3588", "--output", "sub/recipe.toml"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("wrote sub/recipe.toml: list.csv with 24 images for label (single-label), price-EUR (regression)")
    assert "  price (EUR): a number\n" in out
    assert err == ""
    written = manifest.parent / "sub" / "recipe.toml"
    assert Recipe.load(written) == Recipe(target="rk3588", data=DataRecipe(source=str(manifest)), tasks=EXPECTED)
    text = written.read_text(encoding="utf-8")
    assert "# - remark: left out: text with 24 different values" in text
    assert "[tasks.price-EUR]" in text
    assert main(["data", str(written)]) == 0
    out = capsys.readouterr().out
    assert "24 images, 24 usable, label (single-label), price-EUR (regression), tags (multi-label)" in out
    assert "price (EUR): 0 to 11.5, median 5.75, standard deviation 3.46" in out
    assert out.rstrip().endswith("a build can use these images")


def test_data_of_a_manifest(manifest: Path, capsys: Capture) -> None:
    assert main(["data", str(manifest)]) == 0
    assert "24 images, 24 usable, 2 classes" in capsys.readouterr().out
    keys = ["--set", "tasks.tags.kind=multi-label", "--set", "tasks.id.kind=regression"]
    assert main(["data", str(manifest), "--json", *keys]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [head["name"] for head in report["heads"]] == ["tags", "id"]
    assert sum(report["heads"][0]["labels"]["y"].values()) == 16
    manifest.write_text(HEADER + line(0) + line(99))
    assert main(["data", str(manifest)]) == 5
    out, err = capsys.readouterr()
    assert "row 3: no such file; got 99.png" in out
    assert "Traceback" not in err


def test_init_of_what_has_nothing_to_learn(manifest: Path, capsys: Capture) -> None:
    manifest.write_text("path,id\n0.png,1\n1.png,2\n")
    assert main(["init", "list.csv", "--target", "rk3588"]) == 0
    assert "no column of list.csv looks like something to learn" in capsys.readouterr().err
    assert Recipe.load(manifest.parent / "recipe.toml").tasks == {}


def test_init_of_a_named_data_set(manifest: Path, capsys: Capture) -> None:
    assert main(["init", "torchvision:CIFAR10", "--target", "rk3588"]) == 0
    assert "torchvision's CIFAR10" in capsys.readouterr().out
    assert Recipe.load(manifest.parent / "recipe.toml").data.source == "torchvision:CIFAR10"
    assert main(["init", "torchvision:CIFAR11", "--target", "rk3588", "--force"]) == 5
    assert "did you mean CIFAR10" in capsys.readouterr().err
