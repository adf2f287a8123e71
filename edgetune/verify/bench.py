"""Latency of model files on a recipe's device, for the quantizer: what it keeps must be faster there, not here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.files import sha256_file
from edgetune.profile import Profile
from edgetune.progress import Progress
from edgetune.recipe import VerifyRecipe
from edgetune.verify.stage import session_options
from edgetune.verify.targets.interface import EvalRequest, LatencyRequest, ModelRequest, Request
from edgetune.verify.targets.opening import open_target

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["time_on_device"]

PLAN = LatencyRequest(warmup=10, rounds=16, queries_per_round=16, max_seconds=10.0)


def time_on_device(
    paths: Mapping[str, Path],
    images: npt.NDArray[np.uint8],
    profile: Profile,
    recipe: VerifyRecipe,
    *,
    folder: Path,
    progress: Progress,
) -> dict[str, float]:
    """Return the median latency of model files at batch 1 on the recipe's device, in ms, measured in turns.

    Args:
        paths: the files, by any name.
        images: uint8 `[N, H, W, K]`, to be cycled.
        profile: how the files are opened.
        recipe: names the device, which is known to be what the profile describes.
        folder: for what is sent and what comes back.
        progress: told what goes on.

    Raises:
        TargetError: the device cannot be reached, or the runner died on it.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    pack = folder / "images.npy"
    np.save(pack, images, allow_pickle=False)
    # A layer's name is no name for a model.
    names = {f"m{number}": name for number, name in enumerate(paths)}
    request = Request(
        models=tuple(
            ModelRequest(name=code, path=paths[name], sha256=sha256_file(paths[name])) for code, name in names.items()
        ),
        session=session_options(profile),
        eval=EvalRequest(images=pack.resolve()),
        latency=PLAN,
        footprint=False,
    )
    raw = open_target(recipe.device).measure(request, folder, progress)
    return {name: float(raw["models"][code]["latency"]["p50_ms"]) for code, name in names.items()}
