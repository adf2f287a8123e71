"""The part of the straight line that makes an fp32 file smaller: int8 or fp16, and which layer minds how much.

`Run` holds the values; here is what each of them depends on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import OnnxModel, Sensitivity
from edgetune.device.environment import processor_facts
from edgetune.keys import NOT_THE_IMAGES, REVISIONS, versions
from edgetune.stagecache import identity
from edgetune.verify.limits import limits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgetune.pipeline import Run
    from edgetune.quantize.timing import Bench

__all__ = ["bench_of", "halved", "quantized", "sensitivity_of"]


def halved(run: Run, source: OnnxModel) -> OnnxModel:
    """Return an fp32 model in half precision."""

    def compute(folder: Path, _key: str) -> OnnxModel:
        from edgetune.quantize.half import to_half

        return to_half(source, run.dataset, folder=folder)

    return run.cache.value(OnnxModel, "quantize", {"revision": REVISIONS["half"], **_source(run, source)}, compute)


def quantized(run: Run, source: OnnxModel) -> OnnxModel:
    """Return an fp32 model, quantized for the target with the run's images."""
    recipe, profile = run.recipe.quantize, run.profile
    agreement_percent = limits(run.recipe, profile).top1_agreement_percent
    learns_or_measures = recipe.effort != "fast" or profile.quantization.alternatives
    depends = {
        "revision": REVISIONS["quantize"],
        **_source(run, source),
        "recipe": recipe.model_dump(mode="json", exclude={"precision"}),
        **_target(run),
        "agreement_percent": agreement_percent,
        **(_here() if learns_or_measures else {}),
        **({"timed": run.device_facts} if learns_or_measures and _elsewhere(run) else {}),
    }

    def compute(folder: Path, _key: str) -> OnnxModel:
        from edgetune.quantize.stage import quantize

        return quantize(
            source,
            run.dataset,
            recipe,
            profile,
            agreement_percent=agreement_percent,
            seed=run.recipe.seed,
            folder=folder,
            progress=run.progress,
            bench=bench_of(run),
        )

    return run.cache.value(OnnxModel, "quantize", depends, compute)


def sensitivity_of(run: Run, source: OnnxModel) -> Sensitivity:
    """Return the damage that each layer of an fp32 model does alone in integers."""
    recipe = run.recipe.quantize
    read = {"calibration_images", "held_out_images", "ranges", "percentile", "float_layers"}
    depends = {
        "revision": REVISIONS["sensitivity"],
        **_source(run, source),
        "recipe": recipe.model_dump(mode="json", include=read),
        **_target(run),
    }

    def compute(_folder: Path, _key: str) -> Sensitivity:
        from edgetune.quantize.stage import rank_layers

        return rank_layers(source, run.dataset, recipe, run.profile, seed=run.recipe.seed, progress=run.progress)

    return run.cache.value(Sensitivity, "sensitivity", depends, compute)


def _elsewhere(run: Run) -> bool:
    """Return whether another machine, or another interpreter, measures; the recipe names it, so it is the target."""
    return run.recipe.verify.device not in ("auto", "local")


def bench_of(run: Run) -> Bench | None:
    """Return what measures the quantizer's candidates on the device that the recipe names; None where that is this machine."""
    if not _elsewhere(run):
        return None
    from edgetune.verify.bench import time_on_device

    def timed(paths: Mapping[str, Path], images: npt.NDArray[np.uint8]) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            return time_on_device(paths, images, run.profile, run.recipe.verify, folder=folder, progress=run.progress)

    return timed


def _source(run: Run, source: OnnxModel) -> dict[str, Any]:
    return {
        "fp32": source.sha256,
        "images": identity(run.dataset, ignore=NOT_THE_IMAGES),
        "versions": versions("onnxruntime", "onnx", "numpy"),
    }


def _target(run: Run) -> dict[str, Any]:
    return {
        "rules": run.profile.quantization.model_dump(mode="json"),
        "runtime": run.profile.runtime.model_dump(mode="json"),
        "seed": run.recipe.seed,
    }


def _here() -> dict[str, Any]:
    """Return what a graph that is learnt, or whose latency is measured, depends on beside: torch and the processor."""
    facts = processor_facts()
    return {"learning": versions("torch"), "processor": {name: facts[name] for name in ("name", "cores", "features")}}
