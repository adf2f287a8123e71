"""The small world of the verify tests, measured and judged, ready to be released."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from edgetune.artefacts import Figures, Measurement, Report, VerdictRow


def _sibling(name: str, path: Path):
    """Return a module of another room's tests: test folders are no packages, and the world is built in one place."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks its own module up by name
    spec.loader.exec_module(module)
    return module


_worlds = _sibling("verify_world", Path(__file__).parents[1] / "verify" / "conftest.py")
world, task_world = _worlds.world, _worlds.task_world


@pytest.fixture
def measurement() -> Measurement:
    environment = {"architecture": "aarch64", "name": "Cortex-A72", "features": ["asimd", "crc32"], "onnxruntime": "1.31.0"}
    raw = {"models": {}, "environment": environment}
    return Measurement(where="a lab", is_target=False, stand_in_reason="processor lacks asimddp", raw=raw)


@pytest.fixture
def report(measurement: Measurement) -> Report:
    figures = Figures(
        images=40,
        top1_percent=97.5,
        top5_percent=None,
        precision_macro=0.97,
        recall_macro=0.97,
        f1_macro=0.97,
        ece=0.02,
        per_class={},
        confusion=(),
    )
    return Report(
        title="colours on a machine like this one",
        shipped="int8",
        shipped_reason="int8 is 1.9x as fast",
        overall="KEPT",
        verdicts=(VerdictRow(kind="size", name="int8 file", verdict="KEPT", figure="0.01 MB", limit="≤ 1 MB"),),
        figures={"int8": figures},
        latency={"int8": {"p50_ms": 1.5, "p90_ms": 1.6}},
        where=measurement.where,
        environment={"architecture": "x86_64"},
        sections={},
    )
