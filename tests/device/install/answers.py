"""What another program finds on a device."""

from __future__ import annotations

import json

from edgetune.device.digest import check_bundle
from edgetune.device.install.place import Place

__all__ = ["answering"]


def answering(place: Place) -> str | None:
    """Return the release that another program finds, proven to be exactly what was built."""
    name = place.linked()
    if name is not None:
        check_bundle(place.current)
        assert json.loads((place.current / "labels.json").read_text())
    return name
