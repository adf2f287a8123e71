"""Signed releases of the small network, and devices that are folders of this machine behind a real link."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgetune.release.ship.device import Device
from edgetune.transport.local import LocalLink


def _sibling(name: str, path: Path):
    """Return a module of another room's tests: test folders are no packages, and the world is built in one place."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_install = _sibling("install_world", Path(__file__).parents[2] / "device" / "install" / "conftest.py")
publisher, built, release, again = _install.publisher, _install.built, _install.release, _install.again


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this host remembers of its shipments is the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def link() -> Iterator[LocalLink]:
    link = LocalLink()
    yield link
    link.close()


@pytest.fixture
def device(link: LocalLink, publisher, tmp_path: Path) -> Device:
    """A device that was set up and holds no release."""
    device = Device(link, "colours", str(tmp_path / "root"))
    device.set_up({"product": "colours", "allow_volatile": True, "confirm_s": 30.0}, publisher.signers(), None)
    return device
