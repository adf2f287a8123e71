"""`edgetune predict`: what a bundle sees in images, by the runner's own path."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("predict")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="How many classes to name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of lines.")
def command(bundle: Path, images: tuple[Path, ...], top: int, as_json: bool) -> None:
    """Classify images with a bundle, exactly as the board does.

    BUNDLE is a bundle, or a run folder that holds one. Its digests are verified first; decoding, resizing and inference are the
    runner's own.
    """
    from edgetune.device.predict import in_words, predict
    from edgetune.release.load import locate_bundle

    rows = predict(locate_bundle(bundle), images, top)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        click.echo(in_words(row))
