"""The small network and the bundles of other rooms."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def _sibling(room: str) -> ModuleType:
    """Return what another room's tests are built on: test folders are no packages."""
    name = f"tuning_{room}_world"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / room / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_gate, _device = _sibling("gate"), _sibling("device")
world, report, measurement = _gate.world, _gate.report, _gate.measurement
model, bundle = _gate.model, _gate.bundle
classifier = _device.classifier
