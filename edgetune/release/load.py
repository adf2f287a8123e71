"""Read a bundle, but only if it is exactly what was built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.errors import ArtefactError, Fault

__all__ = ["load_bundle"]


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
