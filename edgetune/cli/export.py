"""`edgetune export`: the straight line as far as the fp32 ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgetune.cli.options import opened_run, recipe_options


@click.command("export")
@recipe_options
def command(recipe: Path | None, output: Path | None, settings: tuple[str, ...], **options: Any) -> None:
    """Turn a checkpoint into ONNX, preprocessing included.

    RECIPE is usually the run folder that `edgetune train` wrote.
    """
    with opened_run(recipe, output, settings, options) as run:
        model, reference = run.fp32, run.origin.reference
    click.echo(
        f"opset {model.opset}, IR {model.ir_version}, {model.size_bytes / 1e6:.2f} MB, {(model.macs or 0) / 1e6:.1f} M MACs"
    )
    if (parity := model.parity) is not None:
        click.echo(f"{reference} and ONNX Runtime differ by at most {parity.max_abs:.2g} (worst: {parity.worst})")
    click.echo(f"model {model.path}")
