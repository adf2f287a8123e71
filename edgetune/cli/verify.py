"""`edgetune verify`: is a bundle signed by somebody who may, and exactly what was signed?"""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("verify")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--signers", metavar="FILE", type=FILE, required=True, help="OpenSSH's allowed signers.")
@click.option("--product", metavar="NAME", required=True, help="What it must be a release of.")
@click.option("--revoked", metavar="FILE", type=FILE, help="Keys that may not sign any more.")
def command(bundle: Path, signers: Path, product: str, revoked: Path | None) -> None:
    """Verify a bundle's signature and the digest of every file, as a device does before it installs.

    A line of --signers is: release@PRODUCT namespaces="edgetune-bundle-v1" ssh-ed25519 AAAA…
    """
    from edgetune.release.load import locate_bundle
    from edgetune.release.signing import verify_bundle

    signed = verify_bundle(locate_bundle(bundle), signers, product=product, revoked=revoked)
    click.echo(
        f"{signed.folder}: release {signed.counter} of {signed.product}, signed by {signed.key}; all files are as signed"
    )
