"""The options that every command of the straight line shares: which recipe, which run folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgetune.outside import Given
    from edgetune.pipeline import Run
    from edgetune.recipe import Recipe

__all__ = ["DEVICE_HELP", "opened_run", "recipe_options"]

Function = TypeVar("Function", bound=Callable[..., Any])

# An option of the command line → the recipe's key that it sets.
KEYS = {
    "source": "data.source",
    "target": "target",
    "device": "verify.device",
    "backbone": "model.backbone",
    "weights": "model.weights",
    "teacher": "distill.teacher",
    "ablate": "distill.ablate",
    "time_budget": "train.time_budget_s",
    "effort": "quantize.effort",
}
TRAINING = ("model.", "train.", "distill.", "export.opset")
"""How keys of a recipe begin that say how a network is made."""
DEVICE_HELP = "Measure there: local, python:PATH or ssh://[USER@]HOST[:PORT]; it must be the target."
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time span such as 90s, 10m or 1.5h, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        text = str(value).strip()
        try:
            number = float(text[:-1]) if text[-1:] in SECONDS else float("nan")
        except ValueError:
            number = float("nan")
        if not 0 < number < float("inf"):
            self.fail(f"got {text!r}, expected a time span such as 90s, 10m or 1.5h", param, ctx)
        return number * SECONDS[text[-1]]


def recipe_options(function: Function) -> Function:
    """Add RECIPE, --data, --target, --device, --backbone, --weights, --teacher, --output, --set and their kin to a command."""
    decorators = [
        click.argument("recipe", required=False, type=click.Path(exists=True, path_type=Path)),
        click.option(
            "--data", "source", metavar="DIR", help="A folder of images, one folder per class; a .csv or .parquet; or digits."
        ),
        click.option("--target", metavar="NAME", help="A board (see `edgetune profiles`) or a profile file."),
        click.option("--device", metavar="ADDRESS", help=DEVICE_HELP),
        click.option("--backbone", metavar="NAME", help="Any classifier of timm (see `edgetune backbones`)."),
        click.option("--weights", metavar="auto|none|FILE", help="Where pretrained weights come from."),
        click.option(
            "--teacher",
            multiple=True,
            callback=lambda _, __, names: names or None,
            metavar="NAME|DIR|FILE",
            help="Learn from a larger network: a backbone, a run folder, an .onnx. Given again: from all, averaged.",
        ),
        click.option("--ablate", is_flag=True, default=None, help="Train without the teacher, too, and report what it gave."),
        click.option(
            "--time-budget",
            type=Duration(),
            metavar="TIME",
            help="Cut training down to this time, as 10m. Teachers by name come on top.",
        ),
        click.option(
            "--effort",
            type=click.Choice(("fast", "default", "max")),
            help="Of the quantizer: corrections; also reconstruction, as far as needed; also training.",
        ),
        click.option("--output", metavar="DIR", type=click.Path(path_type=Path), help="The run folder."),
        click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key of the recipe; repeatable."),
    ]
    return functools.reduce(lambda wrapped, decorate: decorate(wrapped), reversed(decorators), function)


def read_recipe(recipe: Path | None, settings: tuple[str, ...], options: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a file, or of a run folder, with the command line's options and settings."""
    from edgetune.errors import UsageError
    from edgetune.recipe import BUILT_IN_SOURCES, NAMED_SOURCES, Recipe

    overrides = {KEYS[name]: value for name, value in options.items() if value is not None}
    if "distill.teacher" in overrides:
        # All that the command line names: those of the recipe are not asked as well.
        first, *others = overrides["distill.teacher"]
        overrides |= {"distill.teacher": first, "distill.more_teachers": others}
    source = overrides.get("data.source")
    if source is not None and source not in BUILT_IN_SOURCES and not source.startswith(NAMED_SOURCES):
        overrides["data.source"] = str(Path(source).expanduser().absolute())
    path = recipe
    if recipe is not None and recipe.is_dir():
        path = recipe / "recipe.toml"
        if not path.is_file():
            raise UsageError(
                f"{recipe} is no run folder: it has no recipe.toml", remedy="if it holds the images, name it with --data"
            )
    return Recipe.load(path, settings, overrides)


def _given_in(recipe: Path | None) -> Given | None:
    """Return what was said of the model file that a run folder began with; None if it began with a recipe."""
    from edgetune.outside import Given
    from edgetune.pipeline import GIVEN

    stored = None if recipe is None else recipe / GIVEN
    return Given.load(stored) if stored is not None and stored.is_file() else None


def _refuse_training(given: Given, settings: tuple[str, ...], options: Mapping[str, Any]) -> None:
    """Refuse what would have no effect on a model that is trained already.

    Raises:
        UsageError: with every such option.
    """
    from edgetune.errors import Fault, UsageError

    idle = {name: key for name, key in KEYS.items() if key.startswith(TRAINING)}
    asked = [f"--{name.replace('_', '-')}" for name in idle if options.get(name) is not None]
    asked += [f"--set {one}" for one in settings if one.strip().startswith(TRAINING)]
    if asked:
        faults = [Fault(where=one, problem="has no meaning for a model that is trained already") for one in asked]
        raise UsageError(f"{given.path.name} is not trained here", faults=faults, remedy="leave that out")


@contextmanager
def opened_run(
    recipe: Path | None,
    output: Path | None,
    settings: tuple[str, ...],
    options: Mapping[str, Any],
    given: Given | None = None,
) -> Iterator[Run]:
    """Open the run that the command line describes, alone in its folder, ending well on a signal.

    A run folder as RECIPE replays, or goes on with, that run; `given` is a model file that a run begins with. Under torchrun
    only the first process gets that far; the others train with it and end.
    """
    from edgetune.cli.console import progress
    from edgetune.outside import FileRun
    from edgetune.pipeline import Run, default_output
    from edgetune.profile import load_profile
    from edgetune.stagecache import locked
    from edgetune.stopping import Stop
    from edgetune.train.distributed import dismissing, joined

    given = given or _given_in(recipe)
    if given is not None:
        _refuse_training(given, settings, options)
    resolved = read_recipe(recipe, settings, options)
    if output is None:
        output = recipe if recipe is not None and recipe.is_dir() else default_output(resolved, recipe)
    profile = load_profile(resolved.target)  # a mistyped target must not leave a run folder behind
    stop = Stop()
    with stop.on_signals(), joined(resolved.train.device) as here:
        if here.rank:
            from edgetune.train.stage import work

            with stop.polled():
                work(stop)
            raise click.exceptions.Exit(0)
        with dismissing(), locked(output), progress() as talk:
            run = Run(recipe=resolved, profile=profile, folder=output, progress=talk, stop=stop)
            yield (run if given is None else FileRun.of(run, given)).begun()
