"""`edgetune sensitivity`: which layers lose by being quantized."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgetune.artefacts import Sensitivity
from edgetune.cli.options import opened_run, recipe_options

SHOWN = 15


@click.command("sensitivity")
@recipe_options
@click.option("--all", "everything", is_flag=True, help="List every layer, not only the worst.")
@click.option("--json", "as_json", is_flag=True, help="Print every layer's figures as JSON.")
def command(
    recipe: Path | None,
    output: Path | None,
    settings: tuple[str, ...],
    everything: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Rank the layers of an fp32 model by the damage that each does alone in integers.

    RECIPE is usually the run folder that `edgetune export` wrote, or the one of a model file. The damage is the divergence from
    fp32 on held-out train images. Layers that do too much can be left in float: --set quantize.float_layers='["NAME"]'.
    """
    with opened_run(recipe, output, settings, options) as run:
        found = run.sensitivity
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _show(found, len(found.layers) if everything else SHOWN)


def _show(found: Sensitivity, shown: int) -> None:
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    width = max(len(row["layer"]) for row in found.layers)
    click.echo(f"{'layer'.ljust(width)}  {'operator':<8}  divergence  agreement")
    for row in found.layers[:shown]:
        click.echo(_line(row["layer"].ljust(width), row["operator"], row))
    if len(found.layers) > shown:
        click.echo(f"and {len(found.layers) - shown} more: --all")
    click.echo(_line("all together".ljust(width), "", found.all_layers))
    click.echo(f"each layer alone in integers, on {found.images} held-out train images; divergence from fp32 in nats")


def _line(name: str, operator: str, figures: dict[str, Any]) -> str:
    return f"{name}  {operator:<8}  {figures['divergence_nats']:>10.2g}  {figures['agreement_percent']:>7.2f} %"
