"""`edgetune init`: a commented recipe for a folder and a target."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from edgetune.cli.main import main
from edgetune.cli.recipe_text import WIDTH, commented_recipe
from edgetune.profile import load_profile
from edgetune.recipe import DataRecipe, Recipe
from edgetune.schema import to_toml


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("cat/1.jpg", "cat/2.JPEG", "dog/deep/1.png", "dog/notes.txt", ".git/x.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_and_a_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "photos", "--target", "raspberry-pi-5", "--output", "sub/my recipe.toml"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "wrote sub/my recipe.toml: photos with 3 images of 2 classes, for Raspberry Pi 5 (BCM2712)",
        "next: edgetune build 'sub/my recipe.toml'",
    ]
    assert output.err == ""
    written = folder / "sub" / "my recipe.toml"
    assert 'source = "../photos"' in written.read_text(encoding="utf-8")
    expected = Recipe(target="raspberry-pi-5", data=DataRecipe(source=str(folder / "photos")))
    assert Recipe.load(written) == expected


def test_a_profile_of_ones_own_is_named_from_the_recipe(folder: Path) -> None:
    shipped = load_profile("raspberry-pi-5").model_dump(mode="json", by_alias=True, exclude_none=True)
    (folder / "mine.toml").write_text(to_toml(shipped), encoding="utf-8")
    assert main(["init", "photos", "--target", "mine.toml", "--output", "sub/recipe.toml"]) == 0
    assert Recipe.load(folder / "sub" / "recipe.toml").target == str(folder / "mine.toml")


def test_without_a_folder_it_is_the_embedded_default(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--target", "rk3588"]) == 0
    assert "scikit-learn's digits" in capsys.readouterr().out
    assert Recipe.load(folder / "recipe.toml") == Recipe(target="rk3588")


def test_it_does_not_replace_a_file_unless_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "recipe.toml").write_text("mine", encoding="utf-8")
    assert main(["init", "photos", "--target", "rk3588"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "recipe.toml exists\n  → choose another --output, or replace it with --force" in output.err
    assert (folder / "recipe.toml").read_text(encoding="utf-8") == "mine"
    assert main(["init", "photos", "--target", "rk3588", "--force"]) == 0
    assert Recipe.load(folder / "recipe.toml").target == "rk3588"


def test_a_folder_with_splits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, number in (("train", 3), ("val", 1), ("test", 2)):
        for label in ("a", "b", "c"):
            (folder / "split" / split / label).mkdir(parents=True)
            for index in range(number):
                (folder / "split" / split / label / f"{index}.png").touch()
    assert main(["init", "split", "--target", "rk3588"]) == 0
    assert "split with 9 train images of 3 classes" in capsys.readouterr().out


def test_absolute_and_home_folders_stay_as_they_are(folder: Path) -> None:
    assert main(["init", str(folder / "photos"), "--target", "rk3588", "--output", "sub/r.toml"]) == 0
    assert f'source = "{folder}/photos"' in (folder / "sub" / "r.toml").read_text(encoding="utf-8")


def test_one_class_is_warned_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "one" / "cat").mkdir(parents=True)
    (folder / "one" / "cat" / "1.png").touch()
    assert main(["init", "one", "--target", "rk3588"]) == 0
    output = capsys.readouterr()
    assert "one with 1 image of 1 class," in output.out
    assert "warning: one has one class only; a build needs two" in output.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["photos/cat"], "photos/cat has no folder with images"),
        (["photos", "--target", "raspbery-pi-5"], "did you mean 'raspberry-pi-5'?"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert not (folder / "recipe.toml").exists()


def test_a_name_that_is_not_utf8_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9")
    (folder / "photos").rename(folder / name)
    assert main(["init", name, "--target", "rk3588"]) == 2
    assert "is not UTF-8" in capsys.readouterr().err


def test_a_workflow_for_ci(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    (folder / "photos.toml").touch()
    assert main(["init", "ci", "--recipe", "photos.toml", "--target", "rk3588"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "wrote .github/workflows/edgetune.yml: pull requests are compared with the branch that they go to",
        "next: git add .github/workflows/edgetune.yml photos.toml",
    ]
    written = (folder / ".github" / "workflows" / "edgetune.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(written)["jobs"]["gate"]["steps"]
    commands = [step["run"] for step in steps if "edgetune " in step.get("run", "")]
    assert commands[-1] == "edgetune compare runs/baseline runs/candidate --github --output report"
    assert all("build photos.toml" in one and "--target rk3588" in one for one in commands[1:-1])
    assert main(["init", "ci"]) == 2
    assert "exists" in capsys.readouterr().err


def test_a_folder_that_is_called_ci_is_still_within_reach(folder: Path) -> None:
    (folder / "photos").rename(folder / "ci")
    assert main(["init", "./ci", "--target", "rk3588"]) == 0
    assert Recipe.load(folder / "recipe.toml").data.source == str(folder / "ci")
    assert main(["init", "digits", "--recipe", "x.toml", "--force"]) == 2


def test_a_comment_ends_a_line_only_where_it_is_full() -> None:
    lines = commented_recipe(Recipe()).splitlines()
    halves = [(line, after) for line, after in itertools.pairwise(lines) if line.startswith("# ") and after.startswith("# ")]
    halves = [(line, after) for line, after in halves if " = (not given)" not in line + after]
    assert len(halves) > 20
    for line, after in halves:
        assert len(line) <= WIDTH < len(f"{line} {after.split()[1]}"), line
