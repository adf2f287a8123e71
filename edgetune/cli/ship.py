"""`edgetune ship`: a signed bundle to a device, a fleet or a registry; and its kin, which see how devices stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgetune.cli.ship_devices import log, pull, rollback, setup, status
from edgetune.cli.ship_places import place_options


class Group(click.Group):
    """A group whose first word may also be a bundle."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Take what is no command for the bundle to ship."""
        known = args[0] in self.commands or (args[0].startswith("-") and args[0] in ctx.help_option_names)
        return super().resolve_command(ctx, args if known else ["bundle", *args])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave options to the hidden command that ships."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["bundle", *args]
        return super().parse_args(ctx, args)


@click.group("ship", cls=Group, subcommand_metavar="BUNDLE [TO] [OPTIONS] | COMMAND …")
def command() -> None:
    r"""Put a signed bundle on devices, see how they stand, go back.

    \b
    edgetune ship BUNDLE --device ssh://board            one device
    edgetune ship BUNDLE --fleet fleet.toml              many, in waves; again finishes the rest
    edgetune ship BUNDLE oci://registry/name:tag         a registry; prints the digest that pins it
    edgetune ship oci://registry/name@sha256:… --device  from there to a device

    A device is set up once with `edgetune ship setup`. It verifies the signature and every file itself, runs the golden images
    before it switches and its health check after, and goes back by itself if anything is wrong or this machine vanishes.
    `edgetune ship bundle --help` lists the options.
    """


@command.command("bundle")
@click.argument("bundle")
@click.argument("to", required=False, metavar="[oci://REGISTRY/NAME:TAG]")
@place_options
@click.option("--forgive", is_flag=True, help="Also to devices that went back from this very bundle before.")
@click.option("--wave", "waves", default="1,10%,100%", show_default=True, help="Of a fleet: how many devices, wave by wave.")
@click.option(
    "--max-failures", default=0, show_default=True, type=click.IntRange(0), help="Of a fleet: more than these stop it."
)
@click.option("--parallel", default=4, show_default=True, type=click.IntRange(1, 64), help="Of a fleet: devices at a time.")
@click.option("--state", type=click.Path(path_type=Path), help="Of a fleet: where its progress is kept; beside fleet.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def bundle_command(bundle: str, to: str | None, as_json: bool, **options: Any) -> int:
    """Ship BUNDLE: a signed bundle, a run folder that holds one, or oci://REGISTRY/NAME@sha256:DIGEST."""
    from edgetune.cli.console import progress
    from edgetune.cli.ship_bundle import opened_bundle, to_device, to_fleet, to_registry

    asked = [name for name in ("device", "fleet") if options[name] is not None]
    if len(asked) + (to is not None) != 1:
        raise click.UsageError("give one of --device, --fleet and oci://REGISTRY/NAME:TAG")
    with progress() as talk, opened_bundle(bundle, talk) as folder:
        if to is not None:
            outcome, lines, code = to_registry(folder, to, talk)
        elif options["fleet"] is not None:
            outcome, lines, code = to_fleet(folder, talk, **options)
        else:
            outcome, lines, code = to_device(folder, talk, **options)
    click.echo(json.dumps(outcome, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))
    return code


for one in (setup, status, rollback, log, pull):
    command.add_command(one)
