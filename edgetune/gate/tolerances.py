"""How much worse a candidate may be than its baseline: defaults, a small TOML file, single keys of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from edgetune.errors import RecipeError
from edgetune.schema import SchemaVersion, Strict, apply_settings, read_toml, validate

__all__ = ["Tolerances"]

Points = Annotated[float, Field(gt=0.0, lt=100.0)]
Percent = Annotated[float, Field(gt=0.0, le=1000.0)]


class Tolerances(Strict):
    """What a gate allows. A candidate that is better is always kept."""

    schema_: SchemaVersion = Field(default=1, alias="schema")
    accuracy_points: Points = 1.0
    """Top-1, or the mean average precision of several labels: points below the baseline's."""
    class_points: Points = 10.0
    """Of one class: points of its images that only the baseline has right."""
    rmse_percent: Percent = 5.0
    """Regression: the root mean squared error above the baseline's."""
    agreement_percent: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    """The least share of the same decisions; 0: reported and not judged, as a model that was trained anew decides otherwise."""
    ece_points: Points = 2.0
    """Expected calibration error: points above the baseline's."""
    latency_percent: Percent = 5.0
    """Batch-1 latency above the baseline's."""
    cold_start_percent: Percent = 50.0
    """Time to open the model above the baseline's; less than 5 ms is never judged."""
    memory_percent: Percent = 10.0
    """Peak memory that the model adds above the baseline's; less than 1 MB is never judged."""
    size_percent: Percent = 10.0
    """Size of the ONNX file above the baseline's."""

    @classmethod
    def load(cls, path: Path | None, settings: Sequence[str] = ()) -> Tolerances:
        """Return the tolerances of a TOML file, or the defaults, with single keys set over them.

        Args:
            path: of the file; None for none.
            settings: as `latency_percent=3`.

        Raises:
            RecipeError: with every fault.
        """
        content: dict[str, Any] = {} if path is None else read_toml(path, RecipeError)
        merged = apply_settings(content, settings)
        return validate(cls, merged, "--set" if path is None else str(path), RecipeError)

    def to_json(self) -> dict[str, float]:
        """Return what is allowed, key by key."""
        return self.model_dump(mode="json", exclude={"schema_"})
