"""The device that an option names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.verify.targets.interface import Target

__all__ = ["device_named"]


def device_named(address: str | None) -> Target:
    """Return the device at an address; None is this machine."""
    from edgetune.errors import UsageError
    from edgetune.verify.targets.local import LocalTarget

    if address not in (None, "local"):
        raise UsageError(f"--device {address}: is not known; expected local")
    return LocalTarget()
