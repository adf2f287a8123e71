"""Which devices a command of `ship` is about: one, or all of a fleet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgetune.errors import EdgetuneError
    from edgetune.progress import Progress
    from edgetune.release.ship.device import Device

__all__ = ["code_of", "opened", "place_options", "places"]

Function = TypeVar("Function", bound=Callable[..., Any])


def place_options(function: Function) -> Function:
    """Add --device, --fleet and --root to a command."""
    decorators = [
        click.option("--device", metavar="ADDRESS", help="ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON], local, or python:PATH."),
        click.option(
            "--fleet", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A fleet.toml."
        ),
        click.option("--root", metavar="DIR", help="The folder there that holds a folder per product: /var/lib/edgetune."),
    ]
    return functools.reduce(lambda wrapped, decorate: decorate(wrapped), reversed(decorators), function)


def places(device: str | None, fleet: Path | None, root: str | None) -> dict[str, tuple[str, str]]:
    """Return address and root of each device that is meant, by name.

    Raises:
        click.UsageError: not exactly one of device and fleet is given.
        UsageError: the fleet's file is wrong.
    """
    from edgetune.release.ship.device import DEFAULT_ROOT
    from edgetune.release.ship.fleet import load_fleet

    if (device is None) == (fleet is None):
        raise click.UsageError("give either --device ADDRESS or --fleet FILE")
    if fleet is None:
        return {str(device): (str(device), root or DEFAULT_ROOT)}
    if root is not None:
        raise click.UsageError("--root belongs to --device; a fleet's file says its own")
    known = load_fleet(fleet)
    return {name: (member.device, known.root_of(name)) for name, member in known.devices.items()}


@contextmanager
def opened(address: str, root: str, product: str, talk: Progress) -> Iterator[Device]:
    """Give a product's place on a device; the link is closed at the end.

    Raises:
        UsageError: the address, the root or the product cannot be.
    """
    from edgetune.release.ship.device import Device
    from edgetune.transport.address import open_link

    link = open_link(address)
    try:
        yield Device(link, product, root, talk)
    finally:
        link.close()


def code_of(faults: list[EdgetuneError]) -> int:
    """Return the exit code of a command that met these errors: that of the gravest, a release that was taken back first."""
    codes = [int(fault.exit_code) for fault in faults]
    return max(codes, default=0)
