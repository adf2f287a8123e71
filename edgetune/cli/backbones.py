"""`edgetune backbones`: networks that suit small devices, their cost, and where their weights come from."""

from __future__ import annotations

import json

import click


@click.command("backbones")
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def command(pattern: str | None, as_json: bool) -> None:
    """List networks, and where their pretrained weights come from.

    Without PATTERN, a choice of small ones; with PATTERN (such as 'mobilenet*'), every classifier of timm whose name matches.
    """
    from edgetune.train.catalogue import catalogue

    rows = catalogue(pattern)
    if as_json:
        click.echo(json.dumps([vars(row) for row in rows], indent=2))
        return
    width = max((len(row.name) for row in rows), default=4)
    click.echo(f"{'name':<{width}}  parameters  input  weights")
    for row in rows:
        millions = "?" if row.parameters is None else f"{row.parameters / 1e6:.2f} M"
        click.echo(f"{row.name:<{width}}  {millions:>10}  {row.input_size:>5}  {row.weights}")
