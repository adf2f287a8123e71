"""From an address to a target."""

from __future__ import annotations

from edgetune.transport.address import open_link
from edgetune.verify.targets.interface import Target
from edgetune.verify.targets.linked import MEASURE_DEADLINE_S, LinkedTarget

__all__ = ["open_target"]


def open_target(address: str, *, deadline_s: float = MEASURE_DEADLINE_S) -> Target:
    """Return the machine that an address names: `auto` and `local` are this one; see `edgetune.transport.address`.

    Nothing is connected yet.

    Raises:
        UsageError: it is not an address.
    """
    return LinkedTarget(open_link("local" if address == "auto" else address), deadline_s=deadline_s)
