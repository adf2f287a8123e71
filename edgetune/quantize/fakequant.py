"""Integers simulated in float, so that what is rounded can be learnt: grids, weights and biases as trainable values.

The simulation rounds where the runtime rounds, as the runtime rounds (to the nearest, ties to even): activations onto their
grids, weights onto theirs, biases onto the product of input and weight scale. What it leaves out is the order of sums.
Through the rounding, gradients pass as if it were not there (the straight-through estimator, Bengio et al. 2013,
arXiv:1308.3432); to the scale, they are those of LSQ (Esser et al. 2020, arXiv:1902.08153, equation 3).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from edgetune.quantize.graph import Grid, WeightGrid, integer_limits

__all__ = ["ActivationGrid", "LayerWeight", "round_through"]


def round_through(values: torch.Tensor) -> torch.Tensor:
    """Round to the nearest integer; the gradient passes."""
    return values + (values.round() - values).detach()


class _FakeQuantize(torch.autograd.Function):
    """clamp(round(x / s), low, high) s, with the gradient of LSQ for s."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
        steps = values / scale
        integers = steps.round()
        inside = (integers >= low) & (integers <= high)
        integers.clamp_(low, high)
        ctx.save_for_backward(inside, torch.where(inside, integers - steps, integers))
        return integers.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        inside, slope = ctx.saved_tensors
        return gradient * inside, (gradient * slope).sum(), None, None


class ActivationGrid(nn.Module):
    """The grid of an activation, its scale trainable, its zero point fixed.

    Args:
        grid: to start from.
        kind: uint8 or int8.
        limits: of the Relu or Clip that the grid absorbs: no integer may come to stand for a value outside of them.
    """

    def __init__(self, grid: Grid, kind: str, limits: tuple[float, float] | None) -> None:
        super().__init__()
        smallest, largest = integer_limits(kind)
        self.zero_point = grid.zero_point
        self.low, self.high = smallest - grid.zero_point, largest - grid.zero_point
        self.start = grid.scale
        self.ceiling = _largest_scale(self.low, self.high, limits)
        # A logarithm: a step of the optimizer is then a relative change, whatever the unit of the tensor.
        self.log_ratio = nn.Parameter(torch.zeros(()))

    def scale(self) -> torch.Tensor:
        """Return the scale, float32."""
        return (self.start * self.log_ratio.exp()).clamp(max=self.ceiling)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values that the integers nearest to these stand for."""
        rounded: torch.Tensor = _FakeQuantize.apply(values, self.scale(), self.low, self.high)
        return rounded

    def grid(self) -> Grid:
        """Return the grid as it is now."""
        return Grid(scale=float(self.scale().detach()), zero_point=self.zero_point)


def _largest_scale(low: int, high: int, limits: tuple[float, float] | None) -> float:
    """Return the largest scale with which low and high steps stay inside the limits."""
    if limits is None:
        return math.inf
    # A limit of zero binds the zero point, not the scale.
    ends = ((limits[0], low), (limits[1], high))
    reaches = [limit / steps for limit, steps in ends if steps and limit and math.isfinite(limit)]
    largest = min(reaches, default=math.inf)
    # In float32, as it will be stored: not a bit more.
    return float(torch.nextafter(torch.tensor(largest), torch.tensor(0.0))) if math.isfinite(largest) else largest


class LayerWeight(nn.Module):
    """A layer's weight and bias as the runtime will have them, both trainable.

    Args:
        weight: in float, of any shape; where its rounding starts from.
        grid: its integers.
        bias: float `[C]`, or None.
        largest: the integers go from `-largest` to `largest`.
        step: of the layer's output; a bias is learnt in this unit.
    """

    def __init__(self, weight: torch.Tensor, grid: WeightGrid, bias: torch.Tensor | None, *, largest: int, step: float) -> None:
        super().__init__()
        self.zero_point, self.axis = grid.zero_point, grid.axis
        self.per_channel = grid.scale.size > 1
        self.shape = (
            [-1 if index == grid.axis else 1 for index in range(weight.ndim)] if self.per_channel else [1] * weight.ndim
        )
        integers = torch.from_numpy(grid.values.astype("float32")) - grid.zero_point
        self.largest = largest
        self.register_buffer("scale", torch.from_numpy(grid.scale.copy()))
        # In steps of the grid: one learning rate fits every layer. What was rounded already keeps its integer.
        steps = weight / self._scale()
        self.steps = nn.Parameter(torch.where((steps.round() - integers).abs() < 0.5, steps, integers))
        self.step = step
        self.start = bias
        self.shift = nn.Parameter(torch.zeros_like(bias)) if bias is not None else None

    def _scale(self) -> torch.Tensor:
        scale = self.get_buffer("scale")
        return scale.reshape(self.shape)

    def integers(self) -> torch.Tensor:
        """Return the integers, without their zero point."""
        return round_through(self.steps).clamp(-self.largest, self.largest)

    def forward(self, input_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight and bias, rounded, for an input of this scale."""
        weight = self.integers() * self._scale()
        bias = self.bias()
        if bias is None:
            return weight, None
        unit = (input_scale * self.get_buffer("scale")).detach()
        return weight, round_through(bias / unit) * unit

    def bias(self) -> torch.Tensor | None:
        """Return the bias before it is rounded."""
        return None if self.start is None or self.shift is None else self.start + self.step * self.shift

    def grid(self) -> WeightGrid:
        """Return the integers as they are now."""
        values = (self.integers().detach() + self.zero_point).numpy()
        kind = "uint8" if self.zero_point else "int8"
        return WeightGrid(
            scale=self.get_buffer("scale").numpy(), zero_point=self.zero_point, axis=self.axis, values=values.astype(kind)
        )
