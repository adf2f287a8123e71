"""`edgetune compare`: a candidate held against its baseline."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgetune.artefacts.comparison import Comparison

__all__ = ["command"]

EXISTING = click.Path(exists=True, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("compare")
@click.argument("baseline", type=EXISTING)
@click.argument("candidate", type=EXISTING)
@click.option(
    "--data", "source", metavar="DIR", help="Labelled images: a folder, a manifest, or digits. Its test split is used."
)
@click.option("--all-images", "every", is_flag=True, help="Use all images of --data: they are of no model's training.")
@click.option(
    "--device", metavar="ADDRESS", default="local", help="What runs both: a board, as ssh://user@board; else this machine."
)
@click.option("--tolerances", metavar="FILE", type=EXISTING, help="A TOML file of tolerances.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A tolerance, as latency_percent=3; repeatable.")
@click.option("--quick", is_flag=True, help="Few pairs of processes: a look, not a measurement.")
@click.option("--no-timing", is_flag=True, help="Leave out latency, cold start and memory.")
@click.option("--strict", is_flag=True, help="Exit with 11 where a verdict is INCONCLUSIVE.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@click.option("--markdown", type=NEW_FILE, help="Write a page of Markdown, as for a job's summary.")
@click.option("--junit", type=NEW_FILE, help="Write JUnit XML.")
@click.option("--github", is_flag=True, help="Print annotations, and append to $GITHUB_STEP_SUMMARY.")
@click.option(
    "--output", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="A folder for all of it, with pictures."
)
def command(
    baseline: Path,
    candidate: Path,
    source: str | None,
    every: bool,
    device: str,
    tolerances: Path | None,
    settings: tuple[str, ...],
    quick: bool,
    no_timing: bool,
    strict: bool,
    as_json: bool,
    markdown: Path | None,
    junit: Path | None,
    github: bool,
    output: Path | None,
) -> int:
    """Hold a candidate against its baseline: is it worse, and can that be told?

    BASELINE and CANDIDATE are bundles, run folders that hold one, or .onnx files that keep edgetune's contract; BASELINE may
    also be a file of `edgetune baseline set`. Both run on the same images, in one session of the same device. Without
    --data the images are those of the run folder's recipe.

    Tolerances, with what is allowed unless said otherwise: accuracy_points 1, class_points 10, rmse_percent 5,
    agreement_percent 0 (not judged), ece_points 2, latency_percent 5, cold_start_percent 50, memory_percent 10,
    size_percent 10.

    The exit code is 10 if a verdict is BROKEN, 11 if none is but one is INCONCLUSIVE and --strict is given, else 0.
    """
    from edgetune.cli.console import progress
    from edgetune.gate import Tolerances, compare
    from edgetune.report.exit_code import code_of
    from edgetune.verify.targets.opening import open_target

    allowed = Tolerances.load(tolerances, settings)
    target = open_target(device)
    with progress() as talk, tempfile.TemporaryDirectory(prefix="edgetune-compare-") as scratch:
        found = compare(
            baseline,
            candidate,
            source=source,
            every=every,
            allowed=allowed,
            quick=quick,
            timed=not no_timing,
            target=target,
            scratch=Path(scratch),
            report=output,
            progress=talk,
        )
    _write(found, markdown, junit, output, strict)
    _print(found, as_json, github, output)
    return int(code_of(found.overall, strict))


def _write(found: Comparison, markdown: Path | None, junit: Path | None, output: Path | None, strict: bool) -> None:
    from edgetune.files import write_atomic, write_json
    from edgetune.report.gate import summary_markdown
    from edgetune.report.gate_ci import junit_xml

    if output is not None:
        from edgetune.report.gate_page import html_page

        write_json(output / "comparison.json", found.to_json())
        write_atomic(output / "report.md", summary_markdown(found, pictures=True).encode())
        write_atomic(output / "index.html", html_page(found, output).encode())
        write_atomic(output / "junit.xml", junit_xml(found, strict))
    if markdown is not None:
        write_atomic(markdown, summary_markdown(found).encode())
    if junit is not None:
        write_atomic(junit, junit_xml(found, strict))


def _print(found: Comparison, as_json: bool, github: bool, output: Path | None) -> None:
    from edgetune.report.gate import console_lines, summary_markdown
    from edgetune.report.gate_ci import github_annotations

    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(console_lines(found)))
        if output is not None:
            click.echo(f"report {output / 'index.html'}")
    if github:
        # GitHub hears commands on either stream; JSON on stdout stays JSON.
        click.echo("\n".join(github_annotations(found)), err=as_json)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(summary_markdown(found))
