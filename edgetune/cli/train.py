"""`edgetune train`: the straight line as far as the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgetune.cli.options import opened_run, recipe_options


@click.command("train")
@recipe_options
def command(recipe: Path | None, output: Path | None, settings: tuple[str, ...], **options: Any) -> None:
    """Fine-tune a backbone on the decoded images.

    The same run folder then serves `edgetune export`, `quantize` and `build`, which go on from the checkpoint.
    """
    with opened_run(recipe, output, settings, options) as run:
        checkpoint, ablation = run.checkpoint, run.ablation
    kept = f"mean of {checkpoint.averaged_epochs} epochs" if checkpoint.averaged_epochs else f"epoch {checkpoint.best_epoch}"
    from edgetune.report.words import metrics

    click.echo(f"{checkpoint.backbone}: validation {metrics(checkpoint.val_metrics)} ({kept})")
    for warning in checkpoint.warnings:
        click.echo(f"warning: {warning}", err=True)
    if ablation is not None:
        click.echo(f"on the test set, with the teacher: {metrics(ablation.taught)}; without: {metrics(ablation.plain)}")
    click.echo(f"checkpoint {checkpoint.weights_path}")
