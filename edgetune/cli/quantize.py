"""`edgetune quantize`: the straight line as far as the int8 file, or an ONNX file that a user brings along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgetune.artefacts import OnnxModel
from edgetune.cli.options import opened_run, recipe_options


@click.command("quantize")
@recipe_options
def command(recipe: Path | None, output: Path | None, settings: tuple[str, ...], **options: Any) -> None:
    """Turn an fp32 ONNX classifier into int8 as the target wants it.

    RECIPE is usually the run folder that `edgetune export` wrote. It may also be an fp32 .onnx file that edgetune exported;
    then --data says which images calibrate it.
    """
    if recipe is not None and recipe.suffix == ".onnx":
        model = _quantize_file(recipe, output, settings, options)
    else:
        with opened_run(recipe, output, settings, options) as run:
            built = run.int8
        if built is None:
            click.echo("nothing to quantize: the recipe or the profile asks for fp32")
            return
        model = built
    _show(model)


def _quantize_file(path: Path, output: Path | None, settings: tuple[str, ...], options: dict[str, Any]) -> OnnxModel:
    from edgetune.errors import UsageError
    from edgetune.outside import quantize_file

    if options["source"] is None:
        raise UsageError("a model file needs images to calibrate with", remedy="give --data DIR")
    for name in ("backbone", "weights"):
        if options.pop(name) is not None:
            raise UsageError(f"--{name} has no meaning for a model that is trained already", remedy="leave it out")
    with opened_run(None, output or Path("runs") / f"{path.stem}-int8", settings, options) as run:
        return quantize_file(run, path)


def _show(model: OnnxModel) -> None:
    for step in model.steps:
        facts = ", ".join(f"{key} {value}" for key, value in step.items() if key != "step")
        click.echo(f"{step['step']}: {facts}")
    if (parity := model.parity) is not None:
        agreement = f"top-1 agreement {parity.top1_agreement_percent:.2f} %, NMSE {parity.nmse:.2g}"
        click.echo(f"against fp32: {agreement} ({parity.images} images)")
    integer = model.operators.get("QLinearConv", 0)
    click.echo(f"as ONNX Runtime runs it: {integer} integer convolutions, {len(model.float_nodes)} in float")
    for node in model.float_nodes:
        click.echo(f"  in float: {node}")
    click.echo(f"model {model.path} ({model.size_bytes / 1e6:.2f} MB)")
