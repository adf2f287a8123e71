"""The tables of what follows training: export, quantization, verification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgetune.schema import Strict

__all__ = ["ExportRecipe", "QuantizeRecipe", "VerifyRecipe"]


class ExportRecipe(Strict):
    """From torch to ONNX."""

    opset: Annotated[int, Field(ge=13, le=23)] | Literal["auto"] = "auto"
    """The version of the default operator set; auto: the newest that the profile's runtime and the quantizer handle."""
    parity_images: int = Field(default=64, ge=3, le=10_000)
    """How many real images torch and ONNX Runtime are compared on."""
    max_abs: float = Field(default=1e-3, gt=0.0, le=1.0)
    """The largest difference of any logit, relative to the largest logit, that still counts as the same network."""


class QuantizeRecipe(Strict):
    """From fp32 to int8."""

    effort: Literal["fast", "default", "max"] = "default"
    """fast: ranges and bias correction; default: also layers in float where that pays and block reconstruction, as far as these
    are needed; max: all that, and quantization-aware training."""
    precision: Literal["auto", "int8", "fp16", "fp32"] = "auto"
    """auto builds int8 or fp16 as the profile says, and ships fp32 only where that is measured not to be faster; fp32 builds no
    other."""
    calibration_images: int = Field(default=256, ge=1, le=1_000_000)
    """How many train images the ranges are taken from, the same number of each class as far as they go."""
    ranges: Literal["minmax", "percentile", "mse", "entropy", "pnorm"] = "pnorm"
    """The range of an activation: its extremes, all but the farthest values, or where the mean square of the error, the
    divergence of the distributions or the p-norm of the error (p = 3) is least."""
    percentile: float = Field(default=99.99, ge=50.0, le=100.0)
    """For ranges = percentile: how many values lie in the range, in percent; half of the others are cut off at either end."""
    equalise: bool | Literal["auto"] = "auto"
    """Bring the channels between two convolutions to one size; auto: only where weights have one scale per tensor."""
    bias_correction: bool = True
    """Correct each layer's bias for the mean error of the quantized layers before it, one after the other."""
    float_layers: tuple[str, ...] = ()
    """Layers to be left in float, by name or pattern, such as `blocks.0.*`."""
    mixed_precision: bool = True
    """Leave layers in float where that is measured to cost no time, or where the tolerance cannot be kept otherwise."""
    reconstruction_steps: int = Field(default=200, ge=1, le=100_000)
    """How many steps each segment learns for."""
    training_steps: int = Field(default=300, ge=1, le=1_000_000)
    """How many steps quantization-aware training takes."""
    held_out_images: int = Field(default=256, ge=1, le=100_000)
    """How many train images no step learns from: they decide which steps are kept. At most a quarter of the train images."""
    samplings: int = Field(default=3, ge=1, le=100)
    """Over so many draws of calibration images the report says how much ranges and bias correction depend on the draw;
    the fast effort leaves that out."""
    near_enough: float = Field(default=5e-4, ge=0.0)
    """The default effort tries no further step once the divergence from fp32 on held-out images is this small, in nats."""
    minutes: float | None = Field(default=None, gt=0.0)
    """No further step is begun after this time; the result then depends on the clock."""


class VerifyRecipe(Strict):
    """What must hold. A key that is not given comes from the profile."""

    device: Annotated[str, Field(pattern=r"^(auto|local|python:.+|ssh://.+)$")] = "auto"
    """auto: measure here, as a stand-in if this machine is not the target. A named device must be the target: local, this
    machine; python:PATH, this machine with another interpreter; ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON], a board."""
    test_images: Annotated[int, Field(ge=10)] | Literal["all"] = "all"
    """How many test images are measured."""
    top1_drop_points: float | None = Field(default=None, gt=0.0, le=100.0)
    """Tolerance: how much lower the top-1 of the shipped model may be than fp32's, in points."""
    top1_agreement_percent: float | None = Field(default=None, gt=0.0, le=100.0)
    """Tolerance: how many decisions must be the same as fp32's, in percent."""
    map_drop_points: float | None = Field(default=None, gt=0.0, le=100.0)
    """Tolerance, several labels: how much lower the mean average precision may be than fp32's; if not given, as top-1's."""
    rmse_increase_percent: float = Field(default=5.0, gt=0.0, le=1000.0)
    """Tolerance, regression: how much larger the root mean squared error of a value may be than fp32's, in percent."""
    latency_p90_ms: float | None = Field(default=None, gt=0.0)
    """Budget: nine of ten inferences at batch 1 must be at most this slow."""
    size_bytes: int | None = Field(default=None, gt=0)
    """Budget: the model file."""
    peak_memory_bytes: int | None = Field(default=None, gt=0)
    """Budget: what the model adds to the process at its peak."""
