"""A release shipped to a real SSH server, over a link that is cut on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.device.digest import check_bundle
from edgetune.errors import TargetError
from edgetune.release.ship.device import Device
from edgetune.transport.address import open_link

CUT_BYTES = 120_000
"""In the middle of the bundle's runner, which is the largest file of so small a bundle."""


def test_a_link_that_is_cut_is_gone_on_from_and_the_release_goes_in(over_ssh, proxy, release, publisher, tmp_path):
    folder, root = release(1), str(tmp_path / "root")
    straight = open_link(over_ssh.address())
    device = Device(straight, "colours", root)
    device.set_up({"product": "colours", "allow_volatile": True}, publisher.signers(), None)
    cut = open_link(over_ssh.address(port=proxy(over_ssh.port, CUT_BYTES, "reset").port))
    with pytest.raises(TargetError, match="broke"):
        Device(cut, "colours", root).ship(folder)
    place = Path(device.folder)
    parts = [path for path in place.rglob("*.part") if path.stat().st_size]
    assert len(parts) == 1
    assert not (place / "current").exists()
    outcome = device.ship(folder)
    assert outcome.sent < 9
    check_bundle(place / "current")
    assert device.status()["current"] == outcome.release
    straight.close()
    cut.close()
