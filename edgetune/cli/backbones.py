"""`edgetune backbones`: networks that suit small devices, what they cost, and which of them suits given images best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.options import DEVICE_HELP

if TYPE_CHECKING:
    from edgetune.artefacts import Ranking


@click.command("backbones")
@click.argument("pattern", required=False)
@click.option(
    "--data", "source", metavar="DIR", help="Rank by these images: a folder of classes, a .csv or .parquet, or digits."
)
@click.option("--target", metavar="NAME", help="Rank by the latency on this board; this machine if not given.")
@click.option("--device", metavar="ADDRESS", help=DEVICE_HELP)
@click.option("--latency-budget", type=click.FloatRange(min=0, min_open=True), metavar="MS", help="The p90 to keep.")
@click.option("--image-size", type=int, metavar="PIXELS", help="Height and width of the model's input.")
@click.option("--output", metavar="DIR", type=click.Path(path_type=Path), help="The run folder of the ranking.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key of the recipe; repeatable.")
@click.option("--remeasure", is_flag=True, help="Time all candidates again, as after a measurement that was disturbed.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def command(
    pattern: str | None,
    source: str | None,
    target: str | None,
    device: str | None,
    latency_budget: float | None,
    image_size: int | None,
    output: Path | None,
    settings: tuple[str, ...],
    remeasure: bool,
    as_json: bool,
) -> None:
    """List networks, or rank them for images and a board.

    Without PATTERN, a choice of small ones; with PATTERN (such as 'mobilenet*', or several with commas between), every
    classifier of timm whose name matches.

    With --data, each is scored by a linear probe on the validation images and timed in int8 and fp32; what no other one beats
    in both is marked, and one is recommended. Only pretrained weights that are on this machine are used: nothing is fetched.
    What was found out is kept in the run folder, so that an interrupted ranking goes on.
    """
    if source is None:
        given = {
            "--target": target,
            "--device": device,
            "--latency-budget": latency_budget,
            "--image-size": image_size,
            "--output": output,
            "--set": settings or None,
            "--remeasure": remeasure or None,
        }
        if unused := [name for name, value in given.items() if value is not None]:
            raise click.UsageError(f"{', '.join(unused)}: only a ranking needs that; give --data")
        _list(pattern, as_json)
        return
    sized = (f"data.image_size={image_size}",) if image_size is not None else ()
    budget = (f"verify.latency_p90_ms={latency_budget}",) if latency_budget is not None else ()
    output = output or Path("runs") / f"ranking-{Path(source).name}-{Path(target or 'host').stem}"
    options = {"source": source, "target": target, "device": device}
    ranking = _ranked(pattern, output, (*sized, *budget, *settings), options, remeasure=remeasure)
    if as_json:
        click.echo(json.dumps(ranking.to_json(), indent=2, ensure_ascii=False))
        return
    from edgetune.report.front import lines

    for line in lines(ranking):
        click.echo(line)
    click.echo(f"ranking {output / 'ranking.json'}")


def _list(pattern: str | None, as_json: bool) -> None:
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


def _ranked(
    pattern: str | None, output: Path, settings: tuple[str, ...], options: dict[str, str | None], *, remeasure: bool
) -> Ranking:
    from edgetune.cli.options import opened_run
    from edgetune.ranking import rank
    from edgetune.train.catalogue import choice

    names = choice(pattern)
    with opened_run(None, output, settings, options) as run:
        return rank(run, names, remeasure=remeasure)
