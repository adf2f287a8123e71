"""The options that every command of the straight line shares: which recipe, which run folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgetune.pipeline import Run
    from edgetune.recipe import Recipe

__all__ = ["opened_run", "recipe_options"]

Function = TypeVar("Function", bound=Callable[..., Any])

# An option of the command line → the recipe's key that it sets.
KEYS = {"source": "data.source", "target": "target", "backbone": "model.backbone", "weights": "model.weights"}


def recipe_options(function: Function) -> Function:
    """Add RECIPE, --data, --target, --backbone, --weights, --output and --set to a command."""
    decorators = [
        click.argument("recipe", required=False, type=click.Path(exists=True, path_type=Path)),
        click.option("--data", "source", metavar="DIR", help="A folder of images, one folder per class; or digits."),
        click.option("--target", metavar="NAME", help="A board (see `edgetune profiles`) or a profile file."),
        click.option("--backbone", metavar="NAME", help="Any classifier of timm (see `edgetune backbones`)."),
        click.option("--weights", metavar="auto|none|FILE", help="Where pretrained weights come from."),
        click.option("--output", metavar="DIR", type=click.Path(path_type=Path), help="The run folder."),
        click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key of the recipe; repeatable."),
    ]
    return functools.reduce(lambda wrapped, decorate: decorate(wrapped), reversed(decorators), function)


def read_recipe(recipe: Path | None, settings: tuple[str, ...], options: dict[str, str | None]) -> Recipe:
    """Return the recipe of a file, or of a run folder, with the command line's options and settings."""
    from edgetune.errors import UsageError
    from edgetune.recipe import BUILT_IN_SOURCES, Recipe

    overrides = {KEYS[name]: value for name, value in options.items() if value is not None}
    source = overrides.get("data.source")
    if source is not None and source not in BUILT_IN_SOURCES:
        overrides["data.source"] = str(Path(source).expanduser().absolute())
    path = recipe
    if recipe is not None and recipe.is_dir():
        path = recipe / "recipe.toml"
        if not path.is_file():
            raise UsageError(
                f"{recipe} is no run folder: it has no recipe.toml", remedy="if it holds the images, name it with --data"
            )
    return Recipe.load(path, settings, overrides)


@contextmanager
def opened_run(
    recipe: Path | None, output: Path | None, settings: tuple[str, ...], options: dict[str, str | None]
) -> Iterator[Run]:
    """Open the run that the command line describes, alone in its folder, ending well on a signal.

    A run folder as RECIPE replays, or goes on with, that run.
    """
    from edgetune.cli.console import progress
    from edgetune.pipeline import Run, default_output
    from edgetune.profile import load_profile
    from edgetune.stagecache import locked
    from edgetune.stopping import Stop

    resolved = read_recipe(recipe, settings, options)
    if output is None:
        output = recipe if recipe is not None and recipe.is_dir() else default_output(resolved, recipe)
    load_profile(resolved.target)  # a mistyped target must not leave a run folder behind
    stop = Stop()
    with stop.on_signals(), locked(output), progress() as talk:
        yield Run.open(resolved, output, talk, stop)
