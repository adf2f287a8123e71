"""`edgetune check`: a bundle's digests, then everything measured and judged again."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("check")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data", "source", metavar="DIR", help="Labelled images to measure the accuracy on: a folder, a manifest, or digits."
)
@click.option("--quick", is_flag=True, help="Few queries: a look, not a measurement.")
@click.option("--strict", is_flag=True, help="Exit with 11 where a verdict is INCONCLUSIVE.")
@click.option("--json", "as_json", is_flag=True, help="Print verdicts and measurement as JSON.")
def command(bundle: Path, source: str | None, quick: bool, strict: bool, as_json: bool) -> int:
    """Verify a bundle's digests, then measure and judge it again.

    BUNDLE is a bundle, or a run folder that holds one. A file that was changed, is missing or was added ends the check with
    exit code 4 before anything is run.
    """
    from edgetune.cli.console import progress
    from edgetune.outside import check_bundle
    from edgetune.release.load import locate_bundle
    from edgetune.report.compose import overall, standing
    from edgetune.report.exit_code import code_of

    with progress() as talk:
        measurement, verdicts = check_bundle(locate_bundle(bundle), source, quick=quick, progress=talk)
    verdict = overall(verdicts)
    if as_json:
        rows = [row.model_dump(mode="json") for row in verdicts]
        content = {"overall": verdict, "verdicts": rows, "where": standing(measurement), "measurement": measurement.raw}
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        from edgetune.report.console import verdict_lines

        click.echo("\n".join(verdict_lines(verdicts)))
        click.echo(f"measured on {standing(measurement)}")
        click.echo(f"overall {verdict}")
    return int(code_of(verdict, strict))
