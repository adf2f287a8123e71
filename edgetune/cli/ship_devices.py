"""What is asked of devices beside shipping: set them up, see how they stand, go back, read their log; fetch from a registry."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.cli.ship_places import code_of, opened, place_options, places

if TYPE_CHECKING:
    from edgetune.release.ship.device import Device

__all__ = ["log", "pull", "rollback", "setup", "status"]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
product_option = click.option("--product", metavar="NAME", required=True, help="Whose releases.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _each(
    device: str | None,
    fleet: Path | None,
    root: str | None,
    product: str,
    as_json: bool,
    ask: Callable[[Device], Any],
    words: Callable[[Any], str],
) -> int:
    """Ask every device that is meant, print a line or a JSON value for each, and return the exit code."""
    from edgetune.cli.console import progress
    from edgetune.errors import EdgetuneError

    answers: dict[str, Any] = {}
    faults: list[EdgetuneError] = []

    def asked() -> Iterator[tuple[str, str]]:
        with progress() as talk:
            for name, (address, there) in places(device, fleet, root).items():
                try:
                    with opened(address, there, product, talk) as place:
                        answers[name] = ask(place)
                    yield name, words(answers[name])
                except EdgetuneError as fault:
                    if fleet is None:
                        raise
                    faults.append(fault)
                    answers[name] = {"error": fault.message}
                    yield name, f"FAILED {fault.message}"

    for name, line in asked():
        if not as_json:
            click.echo(f"{name}: {line}")
    if as_json:
        click.echo(json.dumps(answers if fleet is not None else next(iter(answers.values())), indent=2, ensure_ascii=False))
    return code_of(faults)


def _standing(answer: dict[str, Any]) -> str:
    parts = [f"{answer['current'] or 'nothing'} is current"]
    parts += ["its files are NOT as built"] if answer["intact"] is False else []
    parts += [f"current leads to {answer['linked'] or 'nothing'}"] if answer["linked"] != answer["current"] else []
    parts += [f"the last attempt, {answer['attempt']}, is {answer['state']}"] if answer["attempt"] else []
    parts += [answer["reason"]] if answer["reason"] else []
    parts += [f"back to {', '.join(answer['previous'])} is possible"] if answer["previous"] else []
    return "; ".join(parts)


@click.command("setup")
@place_options
@product_option
@click.option("--signers", type=FILE, help="OpenSSH's allowed signers; kept as they are there, unless given.")
@click.option("--hash-only", is_flag=True, help="Take unsigned bundles: for devices without OpenSSH 8.1 or newer.")
@click.option("--revoked", type=FILE, help="Keys that may not sign any more; without it, none are revoked.")
@click.option("--restart", metavar="COMMAND", default="", help="Run there after each switch, as 'systemctl restart app'.")
@click.option("--health", metavar="COMMAND", default="", help="Run there after the restart; must exit with 0.")
@click.option("--restart-s", type=float, help="Time limit of --restart; 30 unless given.")
@click.option("--health-s", type=float, help="Time limit of the golden images, and of --health; 120 unless given.")
@click.option("--confirm-s", type=float, help="How long a release waits for this machine to confirm it; 60 unless given.")
@click.option("--allow-volatile", is_flag=True, help="Also where the folder lies in memory.")
@json_option
def setup(
    device: str | None,
    fleet: Path | None,
    root: str | None,
    product: str,
    signers: Path | None,
    hash_only: bool,
    revoked: Path | None,
    restart: str,
    health: str,
    allow_volatile: bool,
    as_json: bool,
    **limits: float | None,
) -> int:
    """Set devices up for the releases of a product: runner, signers, limits and hooks. Again, to change them.

    Run `python3 ROOT/PRODUCT/runner.pyz install recover ROOT/PRODUCT` when the device boots: it takes back what was being tried
    when the power went.
    """
    settings = {
        "product": product,
        "trust": "hash-only" if hash_only else "signed",
        "revocation": revoked is not None,
        "restart": shlex.split(restart),
        "health": shlex.split(health),
        "allow_volatile": allow_volatile,
        **{name: value for name, value in limits.items() if value is not None},
    }
    texts = [None if file is None else file.read_bytes() for file in (signers, revoked)]
    return _each(device, fleet, root, product, as_json, lambda place: place.set_up(settings, *texts), lambda _: "is set up")


@click.command("status")
@place_options
@product_option
@json_option
def status(device: str | None, fleet: Path | None, root: str | None, product: str, as_json: bool) -> int:
    """Say what is current on devices, how the last attempt ended, and what there is to go back to."""
    return _each(device, fleet, root, product, as_json, lambda place: place.status(), _standing)


@click.command("rollback")
@place_options
@product_option
@click.option("--to", metavar="RELEASE", help="An earlier release that is still there; the last good one, unless given.")
@json_option
def rollback(device: str | None, fleet: Path | None, root: str | None, product: str, to: str | None, as_json: bool) -> int:
    """Go back to an earlier release on devices, verified and tried as any other."""

    def words(answer: dict[str, Any]) -> str:
        skipped = "".join(f"; passed over {line}" for line in answer["skipped"])
        return f"{answer['release'] or 'nothing'} is current, {answer['was'] or 'nothing'} was{skipped}"

    return _each(device, fleet, root, product, as_json, lambda place: place.roll_back(to), words)


@click.command("log")
@place_options
@product_option
@click.option("--lines", default=20, show_default=True, type=click.IntRange(1))
@json_option
def log(device: str | None, fleet: Path | None, root: str | None, product: str, lines: int, as_json: bool) -> int:
    """Print the last events on devices, as JSON lines."""
    return _each(device, fleet, root, product, as_json, lambda place: place.log(lines), lambda rows: "\n" + "\n".join(rows))


@click.command("pull")
@click.argument("reference", metavar="oci://REGISTRY/NAME@sha256:DIGEST")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--signers", type=FILE, help="Verify the signature, too: OpenSSH's allowed signers.")
@click.option("--product", metavar="NAME", help="With --signers: what it must be a release of.")
@click.option("--revoked", type=FILE, help="With --signers: keys that may not sign any more.")
def pull(reference: str, folder: Path, signers: Path | None, product: str | None, revoked: Path | None) -> None:
    """Fetch a bundle from a registry into FOLDER, verified against its digests; with --signers, its signature, too."""
    from edgetune.cli.console import progress
    from edgetune.release.ship.oci import parse_reference
    from edgetune.release.ship.oci import pull as fetch
    from edgetune.release.signing import verify_bundle

    if (signers is None) != (product is None) or (revoked is not None and signers is None):
        raise click.UsageError("--signers, --product and --revoked go together")
    with progress() as talk:
        pinned = fetch(parse_reference(reference), folder, talk)
    click.echo(f"{folder}: {pinned}")
    if signers is not None and product is not None:
        signed = verify_bundle(folder, signers, product=product, revoked=revoked)
        click.echo(f"release {signed.counter} of {signed.product}, signed by {signed.key}")
