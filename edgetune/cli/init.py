"""`edgetune init`: a commented recipe for a folder, a manifest or a named data set, and a target; or a workflow for CI."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import click

from edgetune.cli.recipe_text import commented_recipe
from edgetune.cli.workflow import DEFAULT as WORKFLOW
from edgetune.cli.workflow import workflow
from edgetune.data.listing import Tree, shown
from edgetune.data.source import is_manifest
from edgetune.errors import UsageError
from edgetune.files import write_atomic
from edgetune.profile import load_profile
from edgetune.recipe import BUILT_IN_SOURCES, NAMED_SOURCES, DataRecipe, Recipe, TaskRecipe

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What there is: in words, what is to be learnt of it, and why."""

    words: str
    tasks: dict[str, TaskRecipe] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@click.command(name="init")
@click.argument("source", metavar="[SOURCE]", default="digits")
@click.option("--target", metavar="NAME", help="The board: a profile's name or a .toml file.  [default: host]")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.  [default: recipe.toml; for ci: .github/workflows/edgetune.yml]",
)
@click.option("--recipe", metavar="FILE", help="For ci: the recipe that the workflow builds.  [default: recipe.toml]")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
def command(source: str, target: str | None, output: Path | None, recipe: str | None, force: bool) -> None:
    """Write a commented recipe for the images of SOURCE and a target.

    SOURCE is a folder with one folder per class, a manifest (.csv, .tsv or .parquet), whose columns say what is to be learnt,
    or a data set like torchvision:CIFAR10. Without it, the recipe is for scikit-learn's digits, which need no files.

    `edgetune init ci` writes a GitHub workflow instead, which builds the recipe of a pull request and of the branch that it
    goes to, and stops it if `edgetune compare` finds it worse. A folder of that name is ./ci.
    """
    if source == "ci":
        _write_workflow(recipe or "recipe.toml", target, output or WORKFLOW, force)
    elif recipe is not None:
        raise UsageError("--recipe is for `edgetune init ci`", remedy="name the new recipe with --output")
    else:
        _write_recipe(source, target or "host", output or Path("recipe.toml"), force)


def _write_workflow(recipe: str, target: str | None, output: Path, force: bool) -> None:
    if target is not None:
        load_profile(target)
    _require_new(output, force)
    write_atomic(output, workflow(recipe, target).encode())
    click.echo(f"wrote {output}: pull requests are compared with the branch that they go to")
    if not Path(recipe).is_file():
        click.echo(f"warning: there is no {recipe} yet; `edgetune init DIR` writes one", err=True)
    click.echo(f"next: git add {shlex.quote(str(output))} {shlex.quote(recipe)}")


def _require_new(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise UsageError(f"{output} exists", remedy="choose another --output, or replace it with --force")


def _write_recipe(source: str, target: str, output: Path, force: bool) -> None:
    _require_new(output, force)
    profile = load_profile(target)
    seen = _seen(source)
    board = _as_written(target, output) if target.endswith(".toml") else target
    recipe = Recipe(target=board, data=DataRecipe(source=_as_written(source, output)), tasks=seen.tasks)
    title = f"What edgetune builds: {seen.words}, for {profile.title}."
    title += "\nEvery key has its default; a line that is deleted means the same."
    if seen.notes:
        title += "\n\nThe tasks, at the end, are guessed from the columns; delete or change what is not meant:"
        title += "".join(f"\n- {note}" for note in seen.notes)
    write_atomic(output, commented_recipe(recipe, title).encode())
    click.echo(f"wrote {output}: {seen.words}, for {profile.title}")
    for note in seen.notes:
        click.echo(f"  {note}")
    click.echo(f"next: edgetune build {shlex.quote(str(output))}")


def _seen(source: str) -> _Seen:
    if source in BUILT_IN_SOURCES:
        return _Seen(words="scikit-learn's digits, built in")
    if source.startswith(NAMED_SOURCES):
        from edgetune.data.named import known_name

        return _Seen(words=f"torchvision's {known_name(source)}")
    return _read(Path(source)) if is_manifest(source) else _Seen(words=_look(Path(source)))


def _read(manifest: Path) -> _Seen:
    """Return what is probably to be learnt from a manifest.

    Raises:
        DataError: it cannot be read.
        UsageError: its name cannot stand in a recipe.
    """
    from edgetune.data.guess import guess_tasks
    from edgetune.data.table import read_table

    _require_utf8(manifest)
    table = read_table(manifest.expanduser())
    guess = guess_tasks(table, DataRecipe(source=str(manifest)))
    if not guess.tasks:
        click.echo(f"warning: no column of {manifest} looks like something to learn; name the tasks yourself", err=True)
    tasks = ", ".join(f"{name} ({task.kind})" for name, task in guess.tasks.items())
    words = f"{manifest} with {_count(len(table.rows), 'image')}" + (f" for {tasks}" if tasks else "")
    return _Seen(words=words, tasks=guess.tasks, notes=tuple(shown(note) for note in guess.notes))


def _require_utf8(path: Path) -> None:
    if os.fsencode(path).decode("utf-8", "replace") != str(path):
        raise UsageError(f"the name of {str(path)!a} is not UTF-8, and so cannot stand in a recipe", remedy="rename it")


def _look(folder: Path) -> str:
    """Return what a folder holds, in words; its files are listed, not opened.

    Raises:
        UsageError: there is no such folder, it has no image, or its name cannot stand in a recipe.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", remedy="give a folder with one folder of images per class")
    _require_utf8(folder)
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
    if source in BUILT_IN_SOURCES or source.startswith(NAMED_SOURCES) or Path(source).expanduser().is_absolute():
        return source
    relative = os.path.relpath(source, output.parent)
    return relative if relative.startswith(".") else f"./{relative}"
