"""`edgetune profile new`: a profile written from a real board."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("profile", no_args_is_help=True)
def command() -> None:
    """Write a profile of a board of your own; `edgetune profiles` lists the shipped ones."""


@command.command("new")
@click.option("--device", metavar="ADDRESS", default="local", show_default=True, help="The board, such as ssh://pi@board.")
@click.option("--name", help="What --target shall call it; default: made of the board's model.")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Default: stdout.")
def new(device: str, name: str | None, output: Path | None) -> int:
    """Read a real board and write its profile: facts with a source for every key.

    Use it as `--target FILE.toml`. What cannot be read, such as the quantization that suits its kernels, comes from the shipped
    profile of the same kind of processor, and says so.
    """
    from edgetune.errors import UsageError
    from edgetune.files import write_atomic
    from edgetune.schema import to_toml
    from edgetune.verify.newprofile import profile_of
    from edgetune.verify.targets.opening import open_target

    if output is not None and output.suffix != ".toml":
        raise UsageError(f"got {output}, expected a name that ends in .toml", remedy="--target knows a file by that ending")
    target = open_target(device)
    profile = profile_of(target.environment(), name, target.describe())
    text = to_toml(profile.model_dump(mode="json", by_alias=True, exclude_none=True))
    if output is None:
        click.echo(text, nl=False)
        return 0
    write_atomic(output, text.encode())
    click.echo(f"{output}: profile {profile.name!r} of {profile.title}; use it with --target {output}")
    return 0
