"""`edgetune init`: a commented recipe for a folder and a target."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from edgetune.cli.recipe_text import commented_recipe
from edgetune.data.listing import Tree
from edgetune.errors import UsageError
from edgetune.files import write_atomic
from edgetune.profile import load_profile
from edgetune.recipe import BUILT_IN_SOURCES, DataRecipe, Recipe

__all__ = ["command"]


@click.command(name="init")
@click.argument("source", metavar="[DIR]", default="digits")
@click.option("--target", default="host", show_default=True, help="The board: a profile's name or a .toml file.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("recipe.toml"), show_default=True)
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
def command(source: str, target: str, output: Path, force: bool) -> None:
    """Write a commented recipe for the images in DIR, one folder per class, and a target.

    Without DIR, the recipe is for scikit-learn's digits, which need no files.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} exists", remedy="choose another --output, or replace it with --force")
    profile = load_profile(target)
    seen = "scikit-learn's digits, built in" if source in BUILT_IN_SOURCES else _look(Path(source))
    board = _as_written(target, output) if target.endswith(".toml") else target
    recipe = Recipe(target=board, data=DataRecipe(source=_as_written(source, output)))
    title = (
        f"What edgetune builds: {seen}, for {profile.title}.\nEvery key has its default; a line that is deleted means the same."
    )
    write_atomic(output, commented_recipe(recipe, title).encode())
    click.echo(f"wrote {output}: {seen}, for {profile.title}")
    click.echo(f"next: edgetune build {shlex.quote(str(output))}")


def _look(folder: Path) -> str:
    """Return what a folder holds, in words; its files are listed, not opened.

    Raises:
        UsageError: there is no such folder, it has no image, or its name cannot stand in a recipe.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", remedy="give a folder with one folder of images per class")
    if os.fsencode(folder).decode("utf-8", "replace") != str(folder):
        raise UsageError(f"the name of {str(folder)!a} is not UTF-8, and so cannot stand in a recipe", remedy="rename it")
    tree = Tree(root=folder)
    classes, _ = tree.entries(tree.top())
    if splits := [found for found in classes if found.name == "train"]:
        classes, _ = tree.entries(splits[0])
    images = sum(1 for found in classes for _ in tree.images(found))
    if not images:
        raise UsageError(
            f"{folder} has no folder with images in it", remedy="put the images of each class into a folder of its own"
        )
    if len(classes) == 1:
        click.echo(f"warning: {folder} has one class only; a build needs two (see `edgetune data`)", err=True)
    return f"{folder} with {_count(images, 'train image' if splits else 'image')} of {_count(len(classes), 'class', 'es')}"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural if number != 1 else ''}"


def _as_written(source: str, output: Path) -> str:
    """Return a path as the recipe names it: relative to the recipe's own folder if it was given relative."""
    if source in BUILT_IN_SOURCES or Path(source).expanduser().is_absolute():
        return source
    relative = os.path.relpath(source, output.parent)
    return relative if relative.startswith(".") else f"./{relative}"
