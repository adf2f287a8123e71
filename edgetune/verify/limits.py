"""What must hold: the recipe's tolerances and budgets, where it names them, over the profile's."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.profile import Profile
from edgetune.recipe import Recipe

__all__ = ["Limits", "limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a build; a budget that is None is not judged.

    Attributes:
        parity_max_abs: largest difference of a logit between torch and ONNX, relative to the largest logit.
        top1_drop_points: tolerance: top-1 below fp32's, in points.
        top1_agreement_percent: tolerance: the same decisions as fp32, in percent.
        map_drop_points: tolerance, several labels: mean average precision below fp32's, in points.
        rmse_increase_percent: tolerance, regression: root mean squared error above fp32's, in percent.
        golden_max_abs: largest difference of a golden logit.
        latency_p90_ms: budget at batch 1.
        size_bytes: budget of the model file.
        peak_memory_bytes: budget of what the model adds to the process.
    """

    parity_max_abs: float
    top1_drop_points: float
    top1_agreement_percent: float
    map_drop_points: float
    rmse_increase_percent: float
    golden_max_abs: float
    latency_p90_ms: float | None = None
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None


def limits(recipe: Recipe, profile: Profile) -> Limits:
    """Return what must hold; a key that the recipe does not give comes from the profile."""
    verify, budget, tolerance = recipe.verify, profile.budget, profile.tolerance
    drop = verify.top1_drop_points or tolerance.top1_drop_points
    return Limits(
        parity_max_abs=recipe.export.max_abs,
        top1_drop_points=drop,
        top1_agreement_percent=verify.top1_agreement_percent or tolerance.top1_agreement_percent,
        map_drop_points=verify.map_drop_points or drop,
        rmse_increase_percent=verify.rmse_increase_percent,
        golden_max_abs=tolerance.logit_max_abs,
        latency_p90_ms=verify.latency_p90_ms or budget.latency_p90_ms,
        size_bytes=verify.size_bytes or budget.size_bytes,
        peak_memory_bytes=verify.peak_memory_bytes or budget.peak_memory_bytes,
    )
