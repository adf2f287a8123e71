"""Latency of candidates, in turns: on this machine where it is the target, else wherever a bench measures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
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

__all__ = ["Bench", "local_bench", "time_files", "timer_on"]

PLAN = LatencyPlan(warmup=20, rounds=16, queries_per_round=16)

Bench = Callable[["Mapping[str, Path]", "npt.NDArray[np.uint8]"], "Mapping[str, float]"]
"""From model files and images, uint8 `[N, H, W, K]`, to the files' median latency on the target at batch 1, in ms, measured in
turns."""


def local_bench(profile: Profile) -> Bench | None:
    """Return what measures files on this machine; None if it is not what the profile describes."""
    import onnxruntime

    here = {"providers": onnxruntime.get_available_providers(), "onnxruntime": onnxruntime.__version__}
    if mismatches(profile, {**processor_facts(), **here}):
        return None
    return lambda paths, images: time_files(paths, profile, images)


def timer_on(bench: Bench | None, images: npt.NDArray[np.uint8]) -> Timer | None:
    """Return what measures graphs where `bench` measures files; None if there is no such place.

    Args:
        bench: measures files on the target.
        images: uint8 `[N, H, W, K]`, to be cycled.
    """
    if bench is None:
        return None

    def timed(graphs: Mapping[str, QuantGraph]) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as scratch:
            paths = {name: Path(scratch) / f"{number}.onnx" for number, name in enumerate(graphs)}
            for name, graph in graphs.items():
                paths[name].write_bytes(to_qdq(graph).SerializeToString())
            return bench(paths, images)

    return timed


def time_files(paths: Mapping[str, Path], profile: Profile, images: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Return the median latency of model files at batch 1, in ms, measured in turns as the profile opens them."""
    session = profile.runtime.session_options()
    found = measure_latency({name: open_session(path, session) for name, path in paths.items()}, images, PLAN)
    return {name: float(found[name]["p50_ms"]) for name in paths}
