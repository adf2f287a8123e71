"""The options that commands share: what they set in the recipe."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgetune.cli.options import read_recipe, recipe_options
from edgetune.recipe import Recipe


def read(*arguments: str) -> Recipe:
    """Return the recipe that a command reads from its command line."""
    read: list[Recipe] = []

    @click.command()
    @recipe_options
    def command(recipe: Path | None, output: Path | None, settings: tuple[str, ...], **options: object) -> None:
        read.append(read_recipe(recipe, settings, options))

    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return read[0]


@pytest.mark.parametrize(
    ("arguments", "teachers"),
    [
        ([], ("resnet18", "resnet34")),
        (["--teacher", "resnet50"], ("resnet50",)),
        (["--teacher", "resnet50", "--teacher", "runs/large"], ("resnet50", str(Path("runs/large").absolute()))),
        (["--teacher", "resnet50", "--set", 'distill.more_teachers=["resnet101"]'], ("resnet50", "resnet101")),
    ],
)
def test_the_command_lines_teachers_are_all_of_them(tmp_path: Path, arguments: list[str], teachers: tuple[str, ...]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('schema = 1\n[distill]\nteacher = "resnet18"\nmore_teachers = ["resnet34"]\n')
    assert read(str(recipe), *arguments).distill.teachers == teachers


def test_an_option_that_is_not_given_leaves_the_recipe_alone() -> None:
    assert read() == Recipe.load(None)
