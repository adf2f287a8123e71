"""`edgetune tune`: session options searched on a device."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.timing import timing_options
from edgetune.errors import UsageError

if TYPE_CHECKING:
    from edgetune.tuning.trials import Trial, Tuned


@click.command("tune")
@click.argument("model", metavar="BUNDLE|MODEL", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--device", metavar="ADDRESS", default="local", show_default=True, help="Measure there, such as on ssh://pi@board."
)
@click.option("--write", is_flag=True, help="Write better options into the bundle.")
@click.option(
    "--output", metavar="DIR", type=click.Path(path_type=Path), help="Write them into a copy, and leave the bundle as it is."
)
@click.option(
    "--profile-out", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write a profile with them."
)
@timing_options
@click.option("--quick", is_flag=True, help="Few pairs of processes: a look, not a measurement.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    model: Path,
    device: str,
    write: bool,
    output: Path | None,
    profile_out: Path | None,
    period_ms: float,
    min_seconds: float,
    quick: bool,
    as_json: bool,
) -> None:
    """Search threads, spinning and memory arena on a device.

    BUNDLE|MODEL is a bundle, a run folder that holds one, or an ONNX file with edgetune's input and output. The present options
    stay unless others are faster beyond the noise; threads that the device does not have are lowered first. Better ones are
    proven on the bundle's golden images before they are written; a signed bundle is refused: tune first, then sign.
    """
    from edgetune.cli.console import progress
    from edgetune.gate.sides import read_side
    from edgetune.tuning.keeping import bundle_of, into_bundle, into_profile
    from edgetune.tuning.search import Pace, tune

    if profile_out is not None and profile_out.suffix != ".toml":
        raise UsageError(
            f"got {profile_out}, expected a name that ends in .toml", remedy="--target knows a file by that ending"
        )
    side = read_side(model, "model")
    keeps = write or output is not None
    pace = Pace(period_s=period_ms / 1e3, min_seconds=min_seconds)
    if keeps:
        bundle_of(side, output)
    with progress() as talk:
        found = tune(side, device, talk, quick=quick, must_be_target=keeps, pace=pace)
        written = into_bundle(side, found, device, talk, output) if keeps and found.kept else None
    profile = into_profile(side, found, profile_out) if profile_out else None
    if as_json:
        kept = {"bundle": str(written) if written else None, "profile": str(profile_out) if profile_out else None}
        click.echo(json.dumps({**found.to_json(), "written": kept}, indent=2, ensure_ascii=False))
        return
    _show(found)
    if written:
        click.echo(f"{written}: session options written; sign it again where it is shipped")
    elif keeps:
        click.echo("nothing written into the bundle")
    if profile:
        click.echo(f"{profile_out}: profile {profile.name!r}; use it with --target {profile_out}")


def _show(found: Tuned) -> None:
    header = ("settings", "p50, present → these", "against present", "bounds", "pairs", "memory", "")
    rows = [header, *map(_cells, found.trials)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row[:-1], widths[:-1], strict=True))
        )
        click.echo("  ".join([first, *rest, row[-1]]).rstrip())
    quick = ", quick: a look, not a measurement" if found.quick else ""
    click.echo(f"measured on {found.where}{quick}")
    for words in found.lowered:
        click.echo(f"searched from {words}")
    if found.best:
        click.echo(f"best: {found.best.words}: {found.best.percent()[0]:+.1f} %")
    else:
        click.echo(f"the present settings stay: {found.reason}")


def _cells(trial: Trial) -> tuple[str, ...]:
    estimate, low, high = trial.percent()
    bounds = "" if math.isinf(trial.shift.high) else f"[{low:+.1f}, {high:+.1f}] %"
    memory = "unknown" if trial.peak_memory_bytes is None else f"{trial.peak_memory_bytes / 1e6:.1f} MB"
    verdict = {"control": "against themselves", "screening": "tried only"}.get(trial.part, "faster" if trial.faster else "")
    return (
        trial.words,
        f"{trial.present_ms:.3f} → {trial.median_ms:.3f} ms",
        f"{estimate:+.1f} %",
        bounds,
        str(trial.shift.pairs),
        memory,
        verdict,
    )
