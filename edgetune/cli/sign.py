"""`edgetune sign`: which release a bundle is, signed with an OpenSSH key."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("sign")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="An OpenSSH key; a .pub if an agent or a hardware key holds the other half.",
)
@click.option("--unsigned", is_flag=True, help="Only write the counter, for devices that are set up with --hash-only.")
@click.option("--counter", metavar="N", type=int, required=True, help="Of this release; devices refuse one that is not higher.")
@click.option("--product", metavar="NAME", help="What it is a release of; as it was built, unless given.")
@click.option("--output", metavar="DIR", type=click.Path(path_type=Path), help="Sign a copy, and leave the bundle as it is.")
def command(bundle: Path, key: Path | None, unsigned: bool, counter: int, product: str | None, output: Path | None) -> None:
    """Say which release a bundle is, and sign that.

    BUNDLE is a bundle, or a run folder that holds one. Product and counter go into its manifest, which lists the digests of all
    files; the signature covers the manifest and is verified before it is written.
    """
    from edgetune.errors import UsageError
    from edgetune.release.load import locate_bundle
    from edgetune.release.signing import sign_bundle

    if (key is None) != unsigned:
        raise click.UsageError("give either --key FILE or --unsigned")
    found = locate_bundle(bundle)
    if output is None and (found.absolute().parent / "recipe.toml").is_file():
        raise UsageError(
            f"{found} belongs to a run, which makes it anew when it is not what it built", remedy="sign a copy: --output DIR"
        )
    signed = sign_bundle(found, key, counter=counter, product=product, output=output)
    by = f"signed by {signed.key}" if signed.key else "unsigned"
    click.echo(f"{signed.folder}: release {signed.counter} of {signed.product}, {by}")
    click.echo(f"manifest sha256:{signed.manifest_sha256}")
