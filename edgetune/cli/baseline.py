"""`edgetune baseline`: the accepted bundle, as a small file for a repository."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

__all__ = ["command"]

FILE = Path("edgetune-baseline.json")
FILE_OPTION = click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), default=FILE, show_default=True, help="The baseline file."
)


@click.group("baseline")
def command() -> None:
    """Accept a bundle as the baseline of later comparisons, or show what was accepted.

    The file holds the bundle's digest, its figures and its decisions about every image: small enough for git.
    `edgetune compare edgetune-baseline.json CANDIDATE` judges accuracy against it on any machine, and latency never.
    """


@command.command("set")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@FILE_OPTION
@click.option(
    "--data", "source", metavar="DIR", help="Labelled images: a folder, a manifest, or digits. Its test split is used."
)
@click.option("--all-images", "every", is_flag=True, help="Use all images of --data: they are of no model's training.")
@click.option(
    "--device", metavar="ADDRESS", default="local", help="What runs it: a board, as ssh://user@board; else this machine."
)
def set_(bundle: Path, file: Path, source: str | None, every: bool, device: str) -> None:
    """Accept BUNDLE, or the bundle in a run folder.

    Without --data the images are those of the run folder's recipe. Without either, only the figures in the manifest are
    kept, and later comparisons are not image by image.
    """
    from edgetune.cli.console import progress
    from edgetune.gate import set_baseline
    from edgetune.verify.targets.opening import open_target

    target = open_target(device)
    with progress() as talk, tempfile.TemporaryDirectory(prefix="edgetune-baseline-") as scratch:
        found = set_baseline(bundle, file, source=source, every=every, target=target, scratch=Path(scratch), progress=talk)
    click.echo("\n".join(found.lines()))
    click.echo(f"wrote {file} ({file.stat().st_size / 1000:.1f} kB)")
    click.echo(f"next: edgetune compare {file} CANDIDATE")


@command.command("show")
@FILE_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print the file's content, decisions included.")
def show(file: Path, as_json: bool) -> None:
    """Show what was accepted."""
    from edgetune.gate import read_baseline

    found = read_baseline(file)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(found.lines()))
