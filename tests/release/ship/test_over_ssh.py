"""A release shipped to a real SSH server, over a link that is cut on the way."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgetune.device.digest import check_bundle
from edgetune.errors import TargetError
from edgetune.release.ship.device import Device
from edgetune.transport.address import open_link

TALK_BYTES = 40_000
"""About what the handshake, the agent and its requests take, beside the files."""


def test_a_link_that_is_cut_is_gone_on_from_and_the_release_goes_in(over_ssh, proxy, release, publisher, tmp_path):
    folder, root = release(1), str(tmp_path / "root")
    straight = open_link(over_ssh.address())
    device = Device(straight, "colours", root)
    device.set_up({"product": "colours", "allow_volatile": True}, publisher.signers(), None)
    # In the middle of the runner, the largest file of so small a bundle; files are sent by name. Closed, not reset: a reset
    # throws away what the server has not read yet.
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    before = sum(size for name, size in sizes.items() if name < "runner.pyz")
    at = TALK_BYTES + before + sizes["runner.pyz"] // 2
    cut = open_link(over_ssh.address(port=proxy(over_ssh.port, at, "close").port))
    with pytest.raises(TargetError, match="broke"):
        Device(cut, "colours", root).ship(folder)
    place = Path(device.folder)
    # The far end may still be writing down what has arrived.
    end = time.monotonic() + 20
    while not (parts := [path for path in place.rglob("*.part") if path.stat().st_size]) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(parts) == 1
    assert not (place / "current").exists()
    outcome = device.ship(folder)
    assert outcome.sent < 9
    check_bundle(place / "current")
    assert device.status()["current"] == outcome.release
    straight.close()
    cut.close()
