"""`edgetune check`: a bundle's digests, then everything measured and judged again, on one device or several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.timing import Counts, timing_options
from edgetune.errors import EdgetuneError, ExitCode

if TYPE_CHECKING:
    from edgetune.outside import Checked

    Found = Mapping[str, Checked | EdgetuneError]


@click.command("check")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data", "source", metavar="DIR", help="Labelled images to measure the accuracy on: a folder, a manifest, or digits."
)
@click.option(
    "--device",
    "addresses",
    metavar="ADDRESS",
    multiple=True,
    help="Measure there: local, python:PATH or ssh://[USER@]HOST[:PORT]; repeatable.",
)
@click.option(
    "--fleet", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A TOML file of devices."
)
@click.option("--stand-in", is_flag=True, help="Measure also on a named device that the bundle was not built for.")
@click.option("--quick", is_flag=True, help="Few queries: a look, not a measurement.")
@timing_options
@click.option(
    "--streams", metavar="N,…", type=Counts(), default=(), help="Throughput of so many parallel streams, too, and energy."
)
@click.option("--strict", is_flag=True, help="Exit with 11 where a verdict is INCONCLUSIVE.")
@click.option("--json", "as_json", is_flag=True, help="Print verdicts and measurement as JSON.")
def command(
    bundle: Path,
    source: str | None,
    addresses: tuple[str, ...],
    fleet: Path | None,
    stand_in: bool,
    quick: bool,
    period_ms: float,
    min_seconds: float,
    streams: tuple[int, ...],
    strict: bool,
    as_json: bool,
) -> int:
    """Verify a bundle's digests, then measure and judge it again.

    BUNDLE is a bundle, or a run folder that holds one. A file that was changed, is missing or was added ends the check with
    exit code 4 before anything is run.

    Without a device, this machine measures, as a stand-in if the bundle was built for another one. Several devices work at
    once; then every pair of them is compared, on the images of --data or else on the golden ones.
    """
    from edgetune.cli.console import progress
    from edgetune.outside import Extent, check_on
    from edgetune.outside.fleet import devices_of
    from edgetune.release.load import locate_bundle

    devices = devices_of(addresses, fleet)
    with progress() as talk:
        found = check_on(
            devices or {"auto": "auto"},
            locate_bundle(bundle),
            source,
            extent=Extent(quick=quick, period_s=period_ms / 1e3, min_seconds=min_seconds, streams=streams),
            progress=talk,
            stand_in=stand_in or not devices,
        )
    if len(found) > 1:
        return _several(found, locate_bundle(bundle), strict=strict, as_json=as_json)
    (one,) = found.values()
    if isinstance(one, EdgetuneError):
        raise one
    return _one(one, strict=strict, as_json=as_json)


def _one(one: Checked, *, strict: bool, as_json: bool) -> int:
    from edgetune.report.compose import overall, standing
    from edgetune.report.console import verdict_lines
    from edgetune.report.exit_code import code_of
    from edgetune.report.speed import speed_lines

    verdict = overall(one.verdicts)
    if as_json:
        click.echo(json.dumps(_as_json(one), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(verdict_lines(one.verdicts)))
        for line in speed_lines(one.measurement):
            click.echo(line)
        click.echo(f"measured on {standing(one.measurement)}")
        click.echo(f"overall {verdict}")
    return int(code_of(verdict, strict))


def _as_json(one: Checked | EdgetuneError) -> dict[str, Any]:
    from edgetune.report.compose import overall, standing

    if isinstance(one, EdgetuneError):
        return {"error": str(one), "exit_code": int(one.exit_code)}
    rows = [row.model_dump(mode="json") for row in one.verdicts]
    where, raw = standing(one.measurement), one.measurement.raw
    return {"overall": overall(one.verdicts), "verdicts": rows, "where": where, "measurement": raw}


def _several(found: Found, bundle: Path, *, strict: bool, as_json: bool) -> int:
    from edgetune.device.bundle import heads_of
    from edgetune.device.digest import read_json
    from edgetune.report.agreement import device_lines, matrix_lines
    from edgetune.verify.agreement import agreements

    heads = heads_of(read_json(bundle / "manifest.json"))
    logits = {name: one.logits for name, one in found.items() if not isinstance(one, EdgetuneError) and one.logits is not None}
    pairs = agreements(logits, heads)
    if as_json:
        content = {"devices": {name: _as_json(one) for name, one in found.items()}, "agreement": pairs}
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        for line in (*device_lines(found), *matrix_lines(pairs)):
            click.echo(line)
    return _worst(found, strict)


def _worst(found: Found, strict: bool) -> int:
    """Return 10 if anything is BROKEN anywhere, else the code of the first device that could not be used, else 11 or 0."""
    from edgetune.report.compose import overall
    from edgetune.report.exit_code import code_of

    codes = [
        int(one.exit_code) if isinstance(one, EdgetuneError) else int(code_of(overall(one.verdicts), strict))
        for one in found.values()
    ]
    if ExitCode.BROKEN in codes:
        return int(ExitCode.BROKEN)
    bad = [code for code in codes if code not in (ExitCode.OK, ExitCode.INCONCLUSIVE)]
    return bad[0] if bad else max(codes)
