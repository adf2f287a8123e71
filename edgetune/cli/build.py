"""`edgetune build`: all stages in a line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.options import opened_run, recipe_options

if TYPE_CHECKING:
    from edgetune.artefacts import Bundle, Report
    from edgetune.pipeline import Run


@click.command("build")
@recipe_options
@click.option("--strict", is_flag=True, help="Exit with 11 where a verdict is INCONCLUSIVE.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the table.")
def command(
    recipe: Path | None,
    output: Path | None,
    settings: tuple[str, ...],
    strict: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Build a verified bundle from a recipe: all stages in a line.

    RECIPE is a TOML file (see `edgetune init`) or an earlier run folder, which is replayed. Without one, the embedded default
    is built: scikit-learn's digits for this machine, offline. What has not changed since the last build is not done again; a
    build that was interrupted goes on.
    """
    with opened_run(recipe, output, settings, options) as run:
        report, bundle = run.report, run.bundle
    return show(run, report, bundle, strict=strict, as_json=as_json)


def show(run: Run, report: Report, bundle: Bundle, *, strict: bool, as_json: bool) -> int:
    """Print what a whole line left, and return the exit code that follows from it."""
    if as_json:
        click.echo((bundle.folder / "report.json").read_text(encoding="utf-8"), nl=False)
    else:
        from edgetune.report.console import draw

        draw(report, sys.stdout)
        click.echo(
            f"\nbundle {bundle.folder}  ({bundle.size_bytes / 1e6:.2f} MB, manifest sha256 {bundle.manifest_sha256[:16]}…)"
        )
        click.echo(f"report {run.folder / 'report.md'}")
    from edgetune.report.exit_code import exit_code

    return int(exit_code(report, strict))
