"""`edgetune profiles`: the boards that edgetune knows."""

from __future__ import annotations

import json

import click

from edgetune.errors import TargetError
from edgetune.profile import Profile, available_profiles, load_profile
from edgetune.schema import to_toml

__all__ = ["command", "quantization_in_words"]

HEADINGS = ("name", "board", "core", "quantization", "threads", "provider", "opset", "IR")


@click.command(name="profiles")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the shipped profiles, or show NAME (or a .toml file) with the source of each fact."""
    if name:
        content = load_profile(name).model_dump(mode="json", by_alias=True)
        click.echo(json.dumps(content, indent=2) if as_json else to_toml(content), nl=as_json)
        return
    loaded = [profile for known in available_profiles() if (profile := _load(known))]
    if as_json:
        click.echo(json.dumps([profile.model_dump(mode="json", by_alias=True) for profile in loaded], indent=2))
        return
    rows = [HEADINGS, *(_row(profile) for profile in loaded)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo("\nedgetune profiles NAME shows everything, with sources; your own board: copy that into a .toml file.")


def _load(name: str) -> Profile | None:
    """Return a shipped profile; None for `host` on a machine that no profile describes, which stderr is told."""
    try:
        return load_profile(name)
    except TargetError as fault:
        click.echo(f"{name}: {fault}", err=True)
        return None


def _row(profile: Profile) -> tuple[str, ...]:
    return (
        profile.name,
        profile.title,
        profile.processor.name or profile.processor.architecture,
        quantization_in_words(profile),
        str(profile.runtime.intra_op_threads),
        profile.runtime.providers[0].removesuffix("ExecutionProvider"),
        str(profile.model.opset),
        str(profile.model.ir_version),
    )


def quantization_in_words(profile: Profile) -> str:
    """Return the types of activations and weights in short: `U8S8 per channel`."""
    quantization = profile.quantization
    if quantization.precision != "int8":
        return quantization.precision
    words = [quantization.types]
    words += ["per channel"] if quantization.per_channel else ["per tensor"]
    words += ["7 bits"] if quantization.reduce_range else []
    return " ".join(words)
