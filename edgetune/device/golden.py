"""Golden images: does this machine decode, resize and compute as the machine that built the bundle did?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .decisions import changed
from .decoders import try_decoders
from .digest import read_json
from .exitcodes import ExitCode, RunnerError
from .heads import Head, default_heads, heads_from_json
from .preprocess import Preprocessing, image_tensor
from .session import image_shape

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Golden(NamedTuple):
    """What a folder of golden images holds.

    Attributes:
        files: the names of the G encoded images.
        tensors: what they must become: uint8 `[G, H, W, K]`.
        logits: what must follow: float32 `[G, C]`.
        heads: what the columns of the logits mean.
        scale: per column of the logits, the difference that counts as 1.
    """

    files: list[str]
    tensors: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    heads: tuple[Head, ...]
    scale: list[float]


def check_golden(session: Any, folder: Path | str, preprocessing: Preprocessing | None) -> dict[str, Any]:
    """Return how this machine's answers to the golden images differ from the builder's.

    The folder holds `golden.json` (`{"images": [{"file": "00.png", "label": 3}, …]}`), the image files, `tensors.npy` (uint8
    `[G, H, W, K]`, what the model must see) and `logits.npy` (float32 `[G, C]`, what it answered at batch 1). For other tasks
    than a single label, `golden.json` also has `heads`, as the manifest, and `scale`: per column of the logits, the difference
    that counts as 1. That is 1 itself for classes and labels, and half the standard deviation of a value over the test images
    for a regression, whose units the profile's tolerance cannot know: at 0.5, a value may be off by a quarter of its standard
    deviation.

    Args:
        session: an open session on the shipped model, with the shipped options.
        folder: the bundle's `golden`.
        preprocessing: the bundle's; None where it is not known: decoding is then skipped.

    Returns:
        `images`: their number. `decode`: `status` (`exact`, `different` or `skipped`), `max_pixel_difference` (in levels of
        255; 255 where a file is no image or one of another size, None where skipped) and `reason`. `logits`: `max_abs` (in
        units of `scale`; None where a logit is not finite), `bit_equal`, `finite` and `top1_changed` (images for which a head
        decides otherwise: another largest logit, or another set of labels). `decoders`: each way of decoding and resizing that
        this machine may have, as `decoders.try_decoders` gives it.

    Raises:
        RunnerError: ARTEFACT: the folder does not hold what it must.
    """
    folder = Path(folder)
    golden = _load(folder)
    return {
        "images": len(golden.files),
        "decode": _compare_pixels(folder, golden.files, golden.tensors, preprocessing),
        "logits": _compare_logits(session, golden),
        "decoders": try_decoders(session, folder, golden, preprocessing) if preprocessing else {},
    }


def golden_tensors(folder: Path | str) -> npt.NDArray[np.uint8]:
    """Return the golden images as the model sees them: uint8 `[G, H, W, K]`.

    Raises:
        RunnerError: ARTEFACT: the folder does not hold what it must.
    """
    return _load(Path(folder)).tensors


def _load(folder: Path) -> Golden:
    import numpy as np

    table = read_json(folder / "golden.json")
    entries = table.get("images") if isinstance(table, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("file"), str) for e in entries):
        raise RunnerError(f"{folder / 'golden.json'} has no list of images with the name of a file each", ExitCode.ARTEFACT)
    try:
        tensors = np.load(str(folder / "tensors.npy"), allow_pickle=False)
        logits = np.load(str(folder / "logits.npy"), allow_pickle=False)
    except (OSError, ValueError, EOFError) as fault:
        raise RunnerError(f"the golden arrays in {folder} cannot be read: {fault}", ExitCode.ARTEFACT) from None
    shapes_fit = tensors.ndim == 4 and 0 not in tensors.shape and logits.ndim == 2
    types_fit = tensors.dtype == np.uint8 and logits.dtype == np.float32
    if not (shapes_fit and types_fit and len(entries) == len(tensors) == len(logits) >= 1):
        raise RunnerError(
            f"{folder}: got {len(entries)} names, {tensors.dtype} {list(tensors.shape)} and {logits.dtype} "
            f"{list(logits.shape)}; expected G names, uint8 [G, H, W, K] and float32 [G, C]",
            ExitCode.ARTEFACT,
        )
    heads, scale = _meaning(folder / "golden.json", table, logits.shape[1])
    return Golden([str(entry["file"]) for entry in entries], tensors, logits, heads, scale)


def _meaning(path: Path, table: dict[str, Any], columns: int) -> tuple[tuple[Head, ...], list[float]]:
    """Return what the columns of the logits mean and how far apart counts as 1; without a word, they are those of a classifier.

    Raises:
        RunnerError: ARTEFACT: it does not fit the logits.
    """
    names = [str(column) for column in range(columns)]
    try:
        heads = heads_from_json(table["heads"]) if "heads" in table else default_heads(names)
    except ValueError as fault:
        raise RunnerError(f"{path}: {fault}", ExitCode.ARTEFACT) from None
    scale = table.get("scale") if "heads" in table else [1.0] * columns
    if not isinstance(scale, list) or not all(isinstance(one, (int, float)) and one > 0 for one in scale):
        raise RunnerError(f"{path}: scale: expected a list of numbers above 0", ExitCode.ARTEFACT)
    if not len(scale) == sum(len(head.columns) for head in heads) == columns:
        raise RunnerError(f"{path}: heads and scale are not of {columns} logits", ExitCode.ARTEFACT)
    return heads, [float(one) for one in scale]


def _compare_pixels(
    folder: Path, files: list[str], tensors: npt.NDArray[np.uint8], preprocessing: Preprocessing | None
) -> dict[str, Any]:
    import numpy as np

    if preprocessing is None:
        return _decoded("skipped", None, "the request does not say the preprocessing")
    largest, reasons = 0, []
    for name, expected in zip(files, tensors):
        try:
            got = image_tensor(folder / name, preprocessing)
        except RunnerError as fault:
            return _decoded("skipped", None, str(fault))
        if isinstance(got, str) or got.shape != expected.shape:
            reasons.append(f"{name} {got if isinstance(got, str) else f'became {list(got.shape)}'}")
        else:
            largest = max(largest, int(np.abs(got.astype(np.int16) - expected).max()))
    if reasons:
        return _decoded("different", 255, "; ".join(reasons))
    if largest:
        return _decoded("different", largest, f"pixels differ by up to {largest} of 255 levels")
    return _decoded("exact", 0, "")


def _decoded(status: str, max_pixel_difference: int | None, reason: str) -> dict[str, Any]:
    return {"status": status, "max_pixel_difference": max_pixel_difference, "reason": reason}


def _compare_logits(session: Any, golden: Golden) -> dict[str, Any]:
    import numpy as np

    tensors, reference = golden.tensors, golden.logits
    expected = image_shape(session)
    if tensors.shape[1:] != expected:
        raise RunnerError(
            f"golden tensors: got images of {list(tensors.shape[1:])}, the model takes {list(expected)}", ExitCode.ARTEFACT
        )
    got = np.concatenate([session.run(["logits"], {"image": tensors[i : i + 1]})[0] for i in range(len(tensors))])
    if got.shape != reference.shape:
        raise RunnerError(
            f"golden logits: the model gives {list(got.shape)}, expected {list(reference.shape)}", ExitCode.ARTEFACT
        )
    finite = bool(np.isfinite(got).all())
    return {
        "max_abs": float((np.abs(got.astype(np.float64) - reference) / golden.scale).max()) if finite else None,
        "bit_equal": got.tobytes() == reference.tobytes(),
        "finite": finite,
        "top1_changed": int(changed(reference, got, golden.heads).sum()),
    }
