"""`edgetune lr-find`: which learning rate suits a network and its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgetune.cli.options import opened_run, recipe_options


@click.command("lr-find")
@recipe_options
@click.option("--steps", type=click.IntRange(min=20), default=100, show_default=True, help="How many rates are tried.")
@click.option("--json", "as_json", is_flag=True, help="Print rates, losses and the suggestion as JSON.")
def command(
    recipe: Path | None, output: Path | None, settings: tuple[str, ...], steps: int, as_json: bool, **options: Any
) -> None:
    """Try ever larger learning rates and suggest one for train.lr.

    The network learns for a few steps at each rate, from 1e-6 until the loss bursts; nothing of that is kept but the curve and
    its picture, in the run folder.
    """
    from edgetune.learning import lr_curve_of

    with opened_run(recipe, output, settings, options) as run:
        curve = lr_curve_of(run, steps)
        picture = run.folder / "pictures" / "lr-find.png"
    if as_json:
        click.echo(json.dumps(curve.to_json(), indent=2))
        return
    if curve.suggestion is None:
        click.echo("the loss falls at no rate: the linear probe cannot be bettered like this, or the images teach nothing")
    else:
        click.echo(f"suggested: --set train.lr={curve.suggestion:.1e} (the recipe has {run.recipe.train.lr:g})")
    click.echo(f"tried {curve.lrs[0]:.0e} to {curve.lrs[-1]:.1e}; picture {picture}")
