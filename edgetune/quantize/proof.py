"""What really runs in integers: read from the graph that ONNX Runtime itself makes of a file."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.profile import Runtime

__all__ = ["Proof", "optimised_graph"]

FLOAT_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv"})
LEVELS = {"disabled": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is left of a graph after the runtime's optimisations.

    Attributes:
        operators: how often each operator stands in it.
        float_convolutions: the names of those that compute in float.
    """

    operators: dict[str, int]
    float_convolutions: tuple[str, ...]


def optimised_graph(path: Path, runtime: Runtime) -> Proof:
    """Return what ONNX Runtime's CPU provider makes of a file at the profile's optimisation level, on this machine."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[runtime.graph_optimization])
        options.optimized_model_filepath = str(target)
        for key, value in runtime.config.items():
            options.add_session_config_entry(key, value)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(target).graph
    return Proof(
        operators=dict(sorted(Counter(node.op_type for node in graph.node).items())),
        float_convolutions=tuple(node.name for node in graph.node if node.op_type in FLOAT_CONVOLUTIONS),
    )
