"""The stage: choose the machine, say what it stands in for, have it measure, keep what it said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Dataset, Measurement, OnnxModel
from edgetune.profile import Profile, honoured, mismatches, require_match
from edgetune.progress import Progress
from edgetune.recipe import VerifyRecipe
from edgetune.verify.targets.interface import EvalRequest, LatencyRequest, ModelRequest, Request, Target
from edgetune.verify.targets.opening import open_target

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "check_target",
    "golden_options",
    "measure",
    "measured_labels",
    "measured_targets",
    "session_options",
    "stand_in",
    "time_models",
]

CPU = "CPUExecutionProvider"
QUICK = LatencyRequest(warmup=10, rounds=8, queries_per_round=16)
QUICK_IMAGES = 16


def session_options(profile: Profile) -> dict[str, Any]:
    """Return how the bundle opens ONNX Runtime on the profile's board: the runner's session options, as JSON types."""
    return profile.runtime.session_options()


def stand_in(profile: Profile, environment: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the session options that a machine can honour for a profile, and why it is not the target.

    Args:
        profile: what the model is built for.
        environment: of the machine, as the runner reads it.

    Returns:
        The profile's own options and an empty reason, if the machine is what the profile describes; else the nearest options
        that it can honour, and every difference in words.
    """
    options, lowered = honoured(session_options(profile), environment)
    reasons = mismatches(profile, dict(environment))
    if reasons and options["providers"][0] not in environment["providers"]:
        reasons.append(f"measured with {CPU} instead of {', '.join(options['providers'])}")
        options["providers"] = [CPU]
    reasons += [f"measured with {words}" for words in lowered]
    return options, "; ".join(reasons)


def check_target(profile: Profile, recipe: VerifyRecipe) -> dict[str, Any]:
    """Refuse, before anything is trained, a machine that must be the target and is not; return its environment.

    Raises:
        UsageError: the recipe's device is not an address.
        TargetError: the recipe names a device and it differs from the profile, with every difference; or the machine that is
            to measure cannot be reached or cannot run ONNX Runtime.
    """
    target = open_target(recipe.device)
    environment = target.environment()
    if recipe.device != "auto":
        require_match(profile, environment, target.describe())
    return environment


def golden_options(profile: Profile, recipe: VerifyRecipe, measurement: Measurement) -> dict[str, Any]:
    """Return the session options for golden logits: the bundle's, as far as this machine can honour them.

    The logits are computed here, also where another machine measured.
    """
    measured_here = recipe.device in ("auto", "local")
    environment = measurement.raw["environment"] if measured_here else open_target("local").environment()
    return stand_in(profile, environment)[0]


def measured_labels(dataset: Dataset, recipe: VerifyRecipe) -> npt.NDArray[np.int64]:
    """Return the labels of the test images that `measure` sends to the device, in their order: int64 `[N]`."""
    import numpy as np

    return np.asarray(dataset.labels("test"))[_chosen(dataset.counts["test"], recipe)]


def measured_targets(dataset: Dataset, recipe: VerifyRecipe) -> npt.NDArray[np.float32]:
    """Return what is right for the test images that `measure` sends to the device, in their order: float32 `[N, T]`.

    See `Dataset.targets`; NaN where it is not known.
    """
    import numpy as np

    return np.asarray(dataset.targets("test"))[_chosen(dataset.counts["test"], recipe)]


def _chosen(count: int, recipe: VerifyRecipe) -> npt.NDArray[np.int64]:
    """Return the indices of the test images to measure, spread evenly: the images may lie sorted by class."""
    import numpy as np

    wanted = count if recipe.test_images == "all" else min(count, recipe.test_images)
    return np.arange(wanted, dtype=np.int64) * count // wanted


def measure(
    models: Mapping[str, OnnxModel],
    dataset: Dataset,
    profile: Profile,
    recipe: VerifyRecipe,
    *,
    folder: Path,
    progress: Progress,
) -> Measurement:
    """Have the recipe's device measure models: logits on the test set, latency, cold start, memory.

    Args:
        models: by name (`fp32`, `int8`); the first is the baseline.
        dataset: its test split is the eval pack.
        profile: the promise; its session options are used as far as the device can honour them.
        recipe: which device, how many images.
        folder: receives `measurement.json` and `logits-NAME.npy`.
        progress: told what goes on.

    Raises:
        TargetError: the device must be the target and is not, cannot be used, or the runner died on it.
        ArtefactError: a model file was changed, or the runner's answer is not one.
    """
    images = EvalRequest(images=_eval_pack(dataset, recipe, folder))
    return _measure_on(models, images, profile, recipe, latency=LatencyRequest(), folder=folder, progress=progress)


def time_models(
    models: Mapping[str, OnnxModel],
    dataset: Dataset,
    profile: Profile,
    recipe: VerifyRecipe,
    *,
    folder: Path,
    progress: Progress,
) -> Measurement:
    """Have the recipe's device time models quickly, on a few validation images; see `measure`."""
    images = EvalRequest(images=(dataset.folder / "val" / "images.npy").resolve(), limit=QUICK_IMAGES)
    return _measure_on(models, images, profile, recipe, latency=QUICK, footprint=False, folder=folder, progress=progress)


def _measure_on(
    models: Mapping[str, OnnxModel],
    images: EvalRequest,
    profile: Profile,
    recipe: VerifyRecipe,
    *,
    latency: LatencyRequest,
    footprint: bool = True,
    folder: Path,
    progress: Progress,
) -> Measurement:
    """Have the recipe's device measure models on images, in the way that is asked; see `measure`."""
    target = open_target(recipe.device)
    environment = check_target(profile, recipe)
    options, reason = stand_in(profile, environment)
    if reason:
        progress.line(f"{target.describe()} stands in for {profile.title}: {reason}")
    request = Request(
        models=tuple(ModelRequest(name=name, path=model.path.resolve(), sha256=model.sha256) for name, model in models.items()),
        session=options,
        eval=images,
        latency=latency,
        footprint=footprint,
    )
    raw = target.measure(request, folder, progress)
    where = _where(target, raw["environment"])
    said: Measurement = Measurement(where=where, is_target=not reason, stand_in_reason=reason, raw=raw).at(folder)
    return said


def _eval_pack(dataset: Dataset, recipe: VerifyRecipe, folder: Path) -> Path:
    """Return the file of the images to measure: the test split itself, or the chosen part of it below `folder`."""
    import numpy as np

    count = dataset.counts["test"]
    chosen = _chosen(count, recipe)
    if len(chosen) == count:
        return (dataset.folder / "test" / "images.npy").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "eval-images.npy"
    np.save(path, dataset.images("test")[chosen], allow_pickle=False)
    return path.resolve()


def _where(target: Target, environment: Mapping[str, Any]) -> str:
    """Return the machine and the runtime that measured, in words."""
    name = environment.get("name") or environment["architecture"]
    return f"{target.describe()}, {name}, {environment['cores']} cores, ONNX Runtime {environment['onnxruntime']}"
