"""A part of a `QuantGraph` as a torch module that computes what the integers will, with trainable grids, weights and biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgetune.quantize.bias import layer_bias
from edgetune.quantize.entry import with_constants
from edgetune.quantize.fakequant import ActivationGrid, LayerWeight
from edgetune.quantize.graph import QuantGraph, integer_limits
from edgetune.quantize.operators import OPERATORS, convolve, require_supported

if TYPE_CHECKING:
    import onnx

__all__ = ["TorchGraph", "trained"]

# The scale of a grid that touches a limit was rounded to float32.
ROUNDING = 1e-6


class TorchGraph(nn.Module):
    """Nodes of a graph, in order, in simulated integers.

    Args:
        graph: with grids for all activations and weights.
        nodes: of the graph, in order.
        source: the only computed tensor that they read; where it has a grid, its values are on that already.
        target: the tensor that is wanted.
        output_step: what counts as a step of a layer whose output stays in float.

    Attributes:
        layers: per quantized layer (node name), its weight.
        grids: per activation that the nodes write, its grid.

    Raises:
        Unsupported: a node cannot be computed in torch.
    """

    def __init__(
        self, graph: QuantGraph, nodes: Sequence[onnx.NodeProto], source: str, target: str, *, output_step: float
    ) -> None:
        super().__init__()
        self.graph, self.nodes, self.source, self.target = graph, list(nodes), source, target
        self.output_step = output_step
        self.layers: dict[str, LayerWeight] = {}
        self.grids: dict[str, ActivationGrid] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.absorbed = {clamp.name for node in nodes if graph.is_integer(node) and (clamp := graph.clamp_after(node))}
        self.absorbed -= {node.name for node in nodes if not _inside(graph, node.output[0])}
        for node in self.nodes:
            require_supported(node)
            self._adopt(node)
        self.parts = nn.ModuleList([*self.layers.values(), *self.grids.values()])

    def _adopt(self, node: onnx.NodeProto) -> None:
        """Take over a node's constants, its weight and the grid of what it writes."""
        graph = self.graph
        largest = integer_limits("int8", reduce_range=graph.rules.reduce_range)[1]
        if node.name in graph.weights:
            weight = torch.from_numpy(graph.array(node.input[1]).copy())
            bias = layer_bias(graph, node)
            grid = graph.weights[node.name]
            known = graph.activations.get(graph.result_of(node))
            self.layers[node.name] = LayerWeight(
                weight,
                grid,
                None if bias is None else torch.from_numpy(bias.copy()),
                largest=largest,
                step=known.scale if known else self.output_step,
            )
        else:
            for name in node.input:
                if name in graph.constants:
                    self.constants[name] = torch.from_numpy(graph.array(name).copy())
        name = node.output[0]
        if name in graph.activations and name not in graph.moved and (graph.entry is None or graph.entry[0] != name):
            limits = graph.clamp_limits(name) if _inside(graph, name) else None
            self.grids[name] = ActivationGrid(graph.activations[name], graph.rules.activation_type, limits)

    def scale_of(self, name: str) -> torch.Tensor:
        """Return the scale of an activation's grid as it is now."""
        root = self.graph.moved.get(name, name)
        if root in self.grids:
            return self.grids[root].scale()
        return torch.tensor(self.graph.activations[root].scale)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the target `[N, ...]` for a source `[N, ...]` in float32 (or uint8, where it is the image's bytes)."""
        known = {self.source: values}
        last = {name: index for index, node in enumerate(self.nodes) for name in node.input}
        for index, node in enumerate(self.nodes):
            result = self._run(node, known)
            name = node.output[0]
            known[name] = self.grids[name](result) if name in self.grids else result
            # What nobody reads any more need not be kept.
            for done in [name for name in node.input if name in known and last[name] == index and name != self.target]:
                del known[done]
        return known[self.target]

    def _run(self, node: onnx.NodeProto, known: dict[str, torch.Tensor]) -> torch.Tensor:
        if node.name in self.absorbed:
            return known[node.input[0]]
        if node.name in self.layers:
            return self._layer(node, known[node.input[0]])
        inputs = [known[name] if name in known else self.constants.get(name) for name in node.input]
        return OPERATORS[node.op_type](node, inputs)

    def _layer(self, node: onnx.NodeProto, values: torch.Tensor) -> torch.Tensor:
        weight, bias = self.layers[node.name](self.scale_of(node.input[0]))
        if node.op_type == "Conv":
            return convolve(node, values, weight, bias)
        inputs = [values, weight] if bias is None else [values, weight, bias]
        return OPERATORS[node.op_type](node, inputs)

    def result(self) -> QuantGraph:
        """Return the graph with the grids, weights and biases as they are now."""
        grids = {name: grid.grid() for name, grid in self.grids.items()}
        moved = {name: grids[root] for name, root in self.graph.moved.items() if root in grids}
        biases = {}
        for node in self.nodes:
            if node.name in self.layers and (bias := self.layers[node.name].bias()) is not None:
                biases[node.input[2]] = bias.detach().numpy().copy()
        return replace(
            self.graph,
            model=with_constants(self.graph.model, biases),
            activations={**self.graph.activations, **grids, **moved},
            weights={**self.graph.weights, **{name: layer.grid() for name, layer in self.layers.items()}},
        )


def _inside(graph: QuantGraph, name: str) -> bool:
    """Return whether a tensor's grid has no integer outside of the Relu or Clip that it comes out of."""
    grid, limits = graph.activations.get(name), graph.clamp_limits(name)
    if grid is None or limits is None:
        return True
    smallest, largest = integer_limits(graph.rules.activation_type)
    reach = grid.scale * (smallest - grid.zero_point), grid.scale * (largest - grid.zero_point)
    return limits[0] <= reach[0] and reach[1] <= limits[1] * (1 + ROUNDING)


def trained(
    module: TorchGraph,
    batch: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    steps: int,
    lr: float,
    scale_lr: float,
    told: Callable[[int], None] = lambda _step: None,
) -> None:
    """Train a module's weights, biases and scales by Adam, the rates falling to zero along half a cosine.

    Args:
        module: what is trained.
        batch: draws a source and what is to come out of it.
        loss: of an output against that.
        steps: of the optimizer.
        lr: of weights and biases, in steps of their grids.
        scale_lr: of the scales of activations, relative.
        told: the number of steps done, after each.
    """
    layers = module.layers.values()
    values = [*(layer.steps for layer in layers), *(layer.shift for layer in layers if layer.shift is not None)]
    scales = [grid.log_ratio for grid in module.grids.values()]
    groups = [{"params": values, "lr": lr}, {"params": scales, "lr": scale_lr}]
    # A short memory of the squared gradients: a segment learns for a hundred steps only.
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(1, steps + 1):
        source, wanted = batch()
        error = loss(module(source), wanted)
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        told(step)
