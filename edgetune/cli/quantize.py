"""`edgetune quantize`: the straight line as far as the int8 file, or all of it from a model file that a user brings along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.build import show
from edgetune.cli.options import opened_run, recipe_options

if TYPE_CHECKING:
    from edgetune.artefacts import OnnxModel
    from edgetune.outside import Given

FILE_OPTIONS = ("pixels", "mean", "std", "labels", "output_name")


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers with commas between them, as 0.485,0.456,0.406."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers."""
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"got {value!r}, expected numbers such as 0.485,0.456,0.406", param, ctx)


@click.command("quantize")
@recipe_options
@click.option("--pixels", metavar="imagenet|half|unit|bytes", help="A file's pixels: a preset, [-1, 1], [0, 1] or [0, 255].")
@click.option("--mean", metavar="A,B,C", type=Numbers(), help="A file's pixels: subtracted, of pixels in [0, 1].")
@click.option("--std", metavar="A,B,C", type=Numbers(), help="A file's pixels: then divided by.")
@click.option("--labels", metavar="FILE", help="Names of a file's outputs, one a line; else the sorted folders of --data.")
@click.option("--output-name", metavar="NAME", help="A file's output with the scores, where it has several.")
@click.option("--strict", is_flag=True, help="A file: exit with 11 where a verdict is INCONCLUSIVE.")
@click.option("--json", "as_json", is_flag=True, help="A file: print report.json instead of the table.")
def command(
    recipe: Path | None,
    output: Path | None,
    settings: tuple[str, ...],
    strict: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Turn an fp32 ONNX classifier into int8 as the target wants it.

    RECIPE is usually the run folder that `edgetune export` wrote. It may also be any image classifier's fp32 .onnx file: then
    --data names labelled images, and the line goes on to a bundle that was measured and judged, as `edgetune build` does.
    """
    said = {name: options.pop(name) for name in FILE_OPTIONS}
    given = _given(recipe, said, options)
    if given is not None:
        recipe, output = None, output or Path("runs") / f"{given.path.stem}-int8"
    with opened_run(recipe, output, settings, options, given) as run:
        from edgetune.outside import FileRun

        if isinstance(run, FileRun):
            reduced, report, bundle = run.reduced, run.report, run.bundle
            if reduced is not None and not as_json:
                _show_steps(run.fp32)
                _show(reduced)
            return show(run, report, bundle, strict=strict, as_json=as_json)
        if strict or as_json:
            _refuse([name for name, asked in (("strict", strict), ("json", as_json)) if asked])
        built = run.reduced
    if built is None:
        click.echo("nothing to quantize: the recipe or the profile asks for fp32")
    else:
        _show(built)
    return 0


def _given(recipe: Path | None, said: dict[str, Any], options: dict[str, Any]) -> Given | None:
    """Return the model file that the command line names, with what is said of it; None if it names a recipe."""
    from edgetune.errors import UsageError
    from edgetune.outside import Given

    if recipe is None or recipe.suffix != ".onnx":
        _refuse([name for name, value in said.items() if value is not None])
        return None
    if options["source"] is None:
        raise UsageError("a model file needs labelled images to calibrate and judge it with", remedy="give --data DIR")
    return Given.of({"file": str(recipe), **said})


def _refuse(names: list[str]) -> None:
    """Refuse options that only a model file has a use for."""
    from edgetune.errors import Fault, UsageError

    if names:
        raise UsageError(
            "that is for a model file, and none is given",
            faults=[Fault(where=f"--{name.replace('_', '-')}", problem="has no meaning for a recipe") for name in names],
            remedy="leave it out, or name the .onnx file: edgetune quantize MODEL.onnx --data DIR",
        )


def _show_steps(model: OnnxModel) -> None:
    for step in model.steps:
        facts = ", ".join(f"{key} {value}" for key, value in step.items() if key != "step")
        click.echo(f"{step['step']}: {facts}")


def _show(model: OnnxModel) -> None:
    _show_steps(model)
    for rung in model.rungs:
        kept = "" if rung["kept"] else ", not kept"
        figures = f"divergence {rung['divergence_nats']:.2g}, agreement {rung['agreement_percent']:.2f} %"
        click.echo(f"{rung['rung']}: {figures} on held-out train images, {rung['seconds']:.0f} s{kept}")
    if spread := model.spread:
        low, high = min(spread["divergence_nats"]), max(spread["divergence_nats"])
        click.echo(
            f"over {spread['samplings']} draws of calibration images: divergence {low:.2g} to {high:.2g} before the later steps"
        )
    if (parity := model.parity) is not None:
        agreement = f"top-1 agreement {parity.top1_agreement_percent:.2f} %, NMSE {parity.nmse:.2g}"
        click.echo(f"against fp32: {agreement} ({parity.images} images)")
    if model.precision == "int8":
        integer = model.operators.get("QLinearConv", 0)
        click.echo(f"as ONNX Runtime runs it: {integer} integer convolutions, {len(model.float_nodes)} in float")
    for node in model.float_nodes:
        click.echo(f"  in float: {node}")
    click.echo(f"model {model.path} ({model.size_bytes / 1e6:.2f} MB)")
