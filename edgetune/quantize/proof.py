"""What really runs in integers: read from the graph that ONNX Runtime itself makes of a file."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.device.session import GRAPH_OPTIMIZATIONS

if TYPE_CHECKING:
    from edgetune.profile import Runtime

__all__ = ["Proof", "optimised_graph"]

FLOAT_LAYERS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is left of a graph after the runtime's optimisations.

    Attributes:
        operators: how often each operator stands in it.
        float_layers: the names of the convolutions and matrix products that compute in float, as the runtime calls them: the
            name in the file, often with something behind it.
    """

    operators: dict[str, int]
    float_layers: tuple[str, ...]


def optimised_graph(path: Path, runtime: Runtime) -> Proof:
    """Return what ONNX Runtime's CPU provider makes of a file at the profile's optimisation level, on this machine."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        level = GRAPH_OPTIMIZATIONS[runtime.graph_optimization]
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(target)
        options.intra_op_num_threads = 1
        for key, value in runtime.config.items():
            options.add_session_config_entry(key, value)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(target).graph
    return Proof(
        operators=dict(sorted(Counter(node.op_type for node in graph.node).items())),
        float_layers=tuple(node.name for node in graph.node if node.op_type in FLOAT_LAYERS),
    )
