"""`edgetune hotspots`: where a model's time goes on a device, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgetune.tuning.hotspots import Hotspots, Spot

SHOWN = 15
NAMED = 5
HEADER = ("layer", "runs as", "us", "share", "MMAC", "kB", "MAC/byte", "GMAC/s", "GB/s", "of best", "bound by")


@click.command("hotspots")
@click.argument("model", metavar="BUNDLE|MODEL", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--device", metavar="ADDRESS", default="local", show_default=True, help="Profile there, such as on ssh://pi@board."
)
@click.option("--all", "everything", is_flag=True, help="List every layer, not only the slowest.")
@click.option("--quick", is_flag=True, help="Few queries: a look, not a measurement.")
@click.option("--json", "as_json", is_flag=True, help="Print every layer's figures as JSON.")
def command(model: Path, device: str, everything: bool, quick: bool, as_json: bool) -> None:
    """Say where a model's time goes on a device, layer by layer.

    BUNDLE|MODEL is a bundle, a run folder that holds one, or an ONNX file with edgetune's input and output. Times are those of
    ONNX Runtime's own profile; multiply-accumulates and bytes follow from shapes. "Of best" is what a layer reaches of what the
    best layers of the same run would let it: little there means that a kernel suits the layer badly. It says nothing about the
    processor's peaks.
    """
    from edgetune.cli.console import progress
    from edgetune.gate.sides import read_side
    from edgetune.tuning.hotspots import hotspots

    side = read_side(model, "model")
    with progress() as talk:
        found = hotspots(side, device, talk, quick=quick)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        _show(found, len(found.spots) if everything else SHOWN)


def _show(found: Hotspots, shown: int) -> None:
    _table([HEADER, *map(_cells, found.spots[:shown])], words=2)
    if len(found.spots) > shown:
        click.echo(f"and {len(found.spots) - shown} more: --all")
    click.echo("")
    operators = [
        (row["operator"], str(row["rows"]), f"{row['microseconds']:.0f}", f"{row['share_percent']:.1f} %")
        for row in found.by_operator()
    ]
    _table([("operator", "rows", "us", "share"), *operators], words=1)
    click.echo("")
    if lost := found.not_found:
        names = ", ".join(lost[:NAMED]) + (f" and {len(lost) - NAMED} more" if len(lost) > NAMED else "")
        click.echo(f"in no row, as computed when the file was opened, or under a name that does not lead back: {names}")
    nodes, macs = found.nodes_us, sum(spot.macs for spot in found.spots)
    click.echo(
        f"{nodes:.0f} us in {len(found.spots)} rows, {macs / 1e6:.1f} MMAC, {macs / nodes / 1e3:.2f} GMAC/s; "
        f"a query takes {found.query_us:.0f} us with what profiling costs"
    )
    click.echo(f"best layers of this run: {found.best_gmacs_per_s:.2f} GMAC/s, {found.best_gbytes_per_s:.2f} GB/s")
    click.echo(f"profiled on {found.where}: {found.queries} queries, {found.session.get('intra_op_threads', 1)} threads")


def _cells(spot: Spot) -> tuple[str, ...]:
    computes = spot.macs > 0
    return (
        spot.layer,
        " + ".join(spot.runs_as),
        f"{spot.microseconds:.1f}",
        f"{spot.share_percent:.1f} %",
        f"{spot.macs / 1e6:.3f}" if computes else "",
        f"{spot.bytes / 1e3:.1f}",
        f"{spot.macs_per_byte:.1f}" if computes else "",
        f"{spot.gmacs_per_s:.2f}" if computes else "",
        f"{spot.gbytes_per_s:.2f}",
        "" if spot.of_best_percent is None else f"{spot.of_best_percent:.0f} %",
        spot.bound,
    )


def _table(rows: Sequence[Sequence[str]], words: int) -> None:
    """Print rows under their header; so many columns from the left are words, the others end where their header ends."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:words], widths[:words], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[words:], widths[words:], strict=True)]
        click.echo("  ".join(cells).rstrip())
