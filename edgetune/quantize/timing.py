"""Latency of candidates, in turns, where this machine is the target."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.device.environment import processor_facts
from edgetune.device.latency import LatencyPlan, measure_latency
from edgetune.device.session import open_session
from edgetune.profile import mismatches
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.placement import to_qdq

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgetune.profile import Profile
    from edgetune.quantize.ladder import Timer

__all__ = ["time_files", "timer_for"]

PLAN = LatencyPlan(warmup=20, rounds=16, queries_per_round=16)


def timer_for(profile: Profile, images: npt.NDArray[np.uint8]) -> Timer | None:
    """Return what measures graphs on this machine; None if it is not what the profile describes.

    Args:
        profile: the target.
        images: uint8 `[N, H, W, K]`, to be cycled.
    """
    import onnxruntime

    here = {"providers": onnxruntime.get_available_providers(), "onnxruntime": onnxruntime.__version__}
    if mismatches(profile, {**processor_facts(), **here}):
        return None

    def timed(graphs: Mapping[str, QuantGraph]) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as scratch:
            paths = {name: Path(scratch) / f"{name}.onnx" for name in graphs}
            for name, graph in graphs.items():
                paths[name].write_bytes(to_qdq(graph).SerializeToString())
            return time_files(paths, profile, images)

    return timed


def time_files(paths: Mapping[str, Path], profile: Profile, images: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Return the median latency of model files at batch 1, in ms, measured in turns as the profile opens them."""
    session = profile.runtime.session_options()
    found = measure_latency({name: open_session(path, session) for name, path in paths.items()}, images, PLAN)
    return {name: float(found[name]["p50_ms"]) for name in paths}
