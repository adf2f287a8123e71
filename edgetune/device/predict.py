"""From a verified bundle and image files to labels and values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import ShippedModel, read_bundle
from .decisions import is_classifier, sigmoid, thresholds_of
from .exitcodes import ExitCode, RunnerError
from .heads import MULTI_LABEL, SINGLE_LABEL, Head, columns_of
from .preprocess import Preprocessing, image_tensor
from .session import image_shape, open_session

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
        likeliest classes with their probabilities, likeliest first; of equals the first class. For other tasks than a single
        label: `image` and `heads`, a table with an entry for each head by its name. Of a single label that is `label`,
        `probability` and `top` as above; of several labels `labels`, those at or above their threshold, likeliest first, and
        `probabilities` of all; of a regression `values`, in the units of the training data.

    Raises:
        RunnerError: ARTEFACT: the bundle is not what was built. DATA: images that cannot be read or decoded, all of them.
            TARGET: onnxruntime, the provider or, but for .npy files, Pillow is missing.
    """
    shipped = read_bundle(bundle)
    tensors = _tensors(images, shipped.preprocessing)
    session = open_session(shipped.path, shipped.session)
    _check_shape(session, shipped)
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


def _check_shape(session: Any, shipped: ShippedModel) -> None:
    got, expected = image_shape(session), shipped.preprocessing.shape
    if got != expected:
        raise RunnerError(
            f"{shipped.path}: got images [H, W, channels] of {list(got)}, expected {list(expected)} as the manifest says",
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
    if is_classifier(shipped.heads):
        return _single_label(logits, shipped.heads[0], top)
    parts = zip(shipped.heads, columns_of(shipped.heads))
    return {"heads": {head.name: _answer_of_head(logits[columns], head, top) for head, columns in parts}}


def _answer_of_head(logits: npt.NDArray[np.float32], head: Head, top: int) -> dict[str, Any]:
    if head.kind == SINGLE_LABEL:
        return _single_label(logits, head, top)
    if head.kind == MULTI_LABEL:
        return _multi_label(logits, head)
    return {"values": {name: float(value) for name, value in zip(head.columns, logits)}}


def _single_label(logits: npt.NDArray[np.float32], head: Head, top: int) -> dict[str, Any]:
    import numpy as np

    likely = softmax(logits)
    order = np.argsort(-likely, kind="stable")[: max(top, 1)]
    best = [{"label": head.columns[index], "probability": float(likely[index])} for index in order]
    return {**best[0], "top": best}


def _multi_label(logits: npt.NDArray[np.float32], head: Head) -> dict[str, Any]:
    likely = {name: float(value) for name, value in zip(head.columns, sigmoid(logits))}
    decided = [name for name, threshold in zip(head.columns, thresholds_of(head)) if likely[name] >= threshold]
    # A sort keeps the order of equals.
    return {"labels": sorted(decided, key=lambda name: -likely[name]), "probabilities": likely}


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return probabilities `[C]` from finite logits `[C]`; they add up to 1."""
    import numpy as np

    powers = np.exp(logits.astype(np.float64) - float(logits.max()))
    likely: npt.NDArray[np.float64] = powers / powers.sum()
    return likely


def in_words(row: dict[str, Any]) -> str:
    """Return a row of `predict` as one line for a person."""
    if "heads" not in row:
        return f"{row['image']}: {_head_in_words('', row)}"
    name_it = len(row["heads"]) > 1
    parts = [_head_in_words(name if name_it else "", answer) for name, answer in row["heads"].items()]
    return f"{row['image']}: {'; '.join(parts)}"


def _head_in_words(name: str, answer: dict[str, Any]) -> str:
    if "values" in answer:
        values = answer["values"]
        text = ", ".join(f"{key} {value:.5g}" for key, value in values.items())
        # A single value often has the name of its task: once is enough.
        return text if not name or list(values) == [name] else f"{name}: {text}"
    if "top" in answer:
        likely = [(entry["label"], entry["probability"]) for entry in answer["top"]]
    else:
        likely = [(label, answer["probabilities"][label]) for label in answer["labels"]]
    text = ", ".join(f"{label} {probability * 100:.1f} %" for label, probability in likely) or "no label"
    return f"{name}: {text}" if name else text


def _shown(path: Path | str) -> str:
    """Return a path as text that can be printed and put into JSON, even where its name is not UTF-8."""
    return os.fsencode(str(path)).decode("utf-8", "replace")
