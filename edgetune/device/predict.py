"""From a verified bundle and image files to labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import ShippedModel, read_bundle
from .exitcodes import ExitCode, RunnerError
from .preprocess import Preprocessing, image_tensor
from .session import image_size, open_session

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def predict(bundle: Path | str, images: Sequence[Path | str], top: int = 5) -> list[dict[str, Any]]:
    """Return what the model of a bundle sees in images.

    Args:
        bundle: the folder; its files are checked first.
        images: paths of image files.
        top: how many classes to name for each image, at most.

    Returns:
        A row per image: `image` (its path), `label`, `probability` (softmax of the logits, 0 to 1) and `top`: the `top`
        likeliest classes with their probabilities, likeliest first; of equals the first class.

    Raises:
        RunnerError: ARTEFACT: the bundle is not what was built. DATA: images that cannot be read or decoded, all of them.
            TARGET: onnxruntime, the provider or Pillow is missing.
    """
    shipped = read_bundle(bundle)
    tensors = _tensors(images, shipped.preprocessing)
    session = open_session(shipped.path, shipped.session)
    _check_size(session, shipped)
    return [{"image": _shown(path), **_answer(session, shipped, tensor, top)} for path, tensor in zip(images, tensors)]


def _tensors(images: Sequence[Path | str], preprocessing: Preprocessing) -> list[npt.NDArray[np.uint8]]:
    # All of them before the first answer: the faults of all come at once.
    tensors, faults = [], []
    for path in images:
        tensor = image_tensor(path, preprocessing)
        if isinstance(tensor, str):
            faults.append(f"{_shown(path)} {tensor}")
        else:
            tensors.append(tensor)
    if faults:
        noun = "image" if len(faults) == 1 else "images"
        raise RunnerError(f"{len(faults)} {noun} cannot be used", ExitCode.DATA, tuple(faults))
    return tensors


def _check_size(session: Any, shipped: ShippedModel) -> None:
    expected = (shipped.preprocessing.height, shipped.preprocessing.width)
    if image_size(session) != expected:
        raise RunnerError(
            f"{shipped.path}: got images of {image_size(session)} pixels, expected {expected} as the manifest says",
            ExitCode.ARTEFACT,
        )


def _answer(session: Any, shipped: ShippedModel, tensor: npt.NDArray[np.uint8], top: int) -> dict[str, Any]:
    import numpy as np

    logits = session.run(["logits"], {"image": tensor[None]})[0][0]
    if len(logits) != len(shipped.classes):
        raise RunnerError(
            f"{shipped.path}: got {len(logits)} logits, expected {len(shipped.classes)} as the manifest says", ExitCode.ARTEFACT
        )
    if not np.isfinite(logits).all():
        raise RunnerError(f"{shipped.path}: the model's answer is not a number; do not use it here", ExitCode.BROKEN)
    likely = softmax(logits)
    order = np.argsort(-likely, kind="stable")[: max(top, 1)]
    best = [{"label": shipped.classes[index], "probability": float(likely[index])} for index in order]
    return {**best[0], "top": best}


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return probabilities `[C]` from finite logits `[C]`; they add up to 1."""
    import numpy as np

    powers = np.exp(logits.astype(np.float64) - float(logits.max()))
    likely: npt.NDArray[np.float64] = powers / powers.sum()
    return likely


def _shown(path: Path | str) -> str:
    """Return a path as text that can be printed and put into JSON, even where its name is not UTF-8."""
    return os.fsencode(str(path)).decode("utf-8", "replace")
