"""What the frozen backbone sees of a run's images, and what that depends on, as every training does.

`Run` holds the images; `learning.py` and `ranking.py` ask for features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Features
from edgetune.keys import NAMES, NOT_THE_IMAGES, REVISIONS, versions, weights_identity
from edgetune.recipe import ModelRecipe, TrainRecipe
from edgetune.stagecache import identity

if TYPE_CHECKING:
    from edgetune.pipeline import Run

__all__ = ["check_weights", "features_for", "features_of", "functions_of", "images_of", "machine_of"]

NOT_THE_FEATURES = ("hidden", "drop_rate", "drop_path_rate", "weights")


def images_of(run: Run) -> str:
    """Return the identity of a run's images and labels."""
    return identity(run.dataset, ignore=(*NOT_THE_IMAGES, *NAMES))


def machine_of(recipe: TrainRecipe) -> dict[str, Any]:
    """Return what decides the last bits of what this machine computes."""
    from edgetune.train.distributed import world
    from edgetune.train.setting import resolved_threads

    return {"threads": resolved_threads(recipe), "processes": world().size, "versions": versions("torch", "timm", "numpy")}


def functions_of(run: Run, model: ModelRecipe) -> str:
    """Return the activation functions that a network may keep on the run's target; see the profile."""
    return run.profile.quantization.functions if model.activation == "auto" else "any"


def check_weights(run: Run, model: ModelRecipe) -> None:
    """Find the pretrained weights in a new run folder: a mistyped name must not cost the decoding of all images."""
    if not (run.folder / "stages" / "train").exists():
        from edgetune.train.network import require_known
        from edgetune.train.weights import resolve

        require_known(model.backbone)
        resolve(model)


def features_of(run: Run, model: ModelRecipe) -> Features:
    """Return what a recipe's frozen backbone sees of the run's images."""
    recipe = run.recipe.train
    depends = {
        "revision": REVISIONS["features"],
        "images": images_of(run),
        "model": model.model_dump(mode="json", exclude=set(NOT_THE_FEATURES)),
        "weights": weights_identity(model.weights, model.backbone),
        # Only random weights are drawn.
        **({"seed": run.recipe.seed} if model.weights == "none" else {}),
        "functions": functions_of(run, model),
        "device": recipe.device,
        **machine_of(recipe),
    }

    def compute(folder: Path, _key: str) -> Features:
        from edgetune.train.start import features

        with run.stop.polled():
            return features(
                run.dataset,
                model,
                recipe,
                functions=functions_of(run, model),
                seed=run.recipe.seed,
                folder=folder,
                progress=run.progress,
                stop=run.stop,
            )

    return run.cache.value(Features, "features", depends, compute)


def features_for(run: Run, model: ModelRecipe, recipe: TrainRecipe) -> Features | None:
    """Return the features, if the strategy begins with a linear probe."""
    from edgetune.train.strategy import wants_probe

    return features_of(run, model) if wants_probe(recipe, pretrained=model.weights != "none") else None
