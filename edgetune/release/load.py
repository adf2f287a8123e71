"""Read a bundle, but only if it is exactly what was built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.errors import ArtefactError, Fault

__all__ = ["load_bundle", "locate_bundle"]


def locate_bundle(folder: Path) -> Path:
    """Return the bundle that a user means by a folder: the folder itself, or the `bundle` in a run folder."""
    inside = folder / "bundle"
    is_run = (folder / "recipe.toml").is_file() and inside.is_dir() and not (folder / "manifest.json").exists()
    return inside if is_run else folder


def load_bundle(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle after checking every file's digest, and that no file is missing or was added.

    Raises:
        ArtefactError: with every file that is not what was built.
    """
    from edgetune.device.digest import check_bundle
    from edgetune.device.exitcodes import RunnerError

    try:
        return dict(check_bundle(folder))
    except RunnerError as fault:
        raise ArtefactError(
            fault.message,
            faults=[Fault(where="", problem=line) for line in fault.faults],
            remedy="build it again with `edgetune build`, or fetch an untouched copy",
        ) from fault
