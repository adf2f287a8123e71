"""Golden images: does this machine decode, resize and compute as the machine that built the bundle did?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .digest import read_json
from .exitcodes import ExitCode, RunnerError
from .preprocess import Preprocessing, image_tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def check_golden(session: Any, folder: Path | str, preprocessing: Preprocessing | None) -> dict[str, Any]:
    """Return how this machine's answers to the golden images differ from the builder's.

    The folder holds `golden.json` (`{"images": [{"file": "00.png", "label": 3}, …]}`), the image files, `tensors.npy` (uint8
    `[G, H, W, 3]`, what the model must see) and `logits.npy` (float32 `[G, C]`, what it answered at batch 1).

    Args:
        session: an open session on the shipped model, with the shipped options.
        folder: the bundle's `golden`.
        preprocessing: the bundle's; None where it is not known: decoding is then skipped.

    Returns:
        `images`: their number. `decode`: `status` (`exact`, `different` or `skipped`), `max_pixel_difference` (in levels of
        255; 255 where a file is no image or one of another size, None where skipped) and `reason`. `logits`: `max_abs` (None
        where a logit is not finite), `bit_equal`, `finite` and `top1_changed` (images with another largest logit).

    Raises:
        RunnerError: ARTEFACT: the folder does not hold what it must.
    """
    folder = Path(folder)
    files, tensors, reference = _load(folder)
    return {
        "images": len(files),
        "decode": _compare_pixels(folder, files, tensors, preprocessing),
        "logits": _compare_logits(session, tensors, reference),
    }


def golden_tensors(folder: Path | str) -> npt.NDArray[np.uint8]:
    """Return the golden images as the model sees them: uint8 `[G, H, W, 3]`.

    Raises:
        RunnerError: ARTEFACT: the folder does not hold what it must.
    """
    return _load(Path(folder))[1]


def _load(folder: Path) -> tuple[list[str], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
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
    shapes_fit = tensors.ndim == 4 and tensors.shape[3] == 3 and logits.ndim == 2
    types_fit = tensors.dtype == np.uint8 and logits.dtype == np.float32
    if not (shapes_fit and types_fit and len(entries) == len(tensors) == len(logits) >= 1):
        raise RunnerError(
            f"{folder}: got {len(entries)} names, {tensors.dtype} {list(tensors.shape)} and {logits.dtype} "
            f"{list(logits.shape)}; expected G names, uint8 [G, H, W, 3] and float32 [G, C]",
            ExitCode.ARTEFACT,
        )
    return [str(entry["file"]) for entry in entries], tensors, logits


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


def _compare_logits(session: Any, tensors: npt.NDArray[np.uint8], reference: npt.NDArray[np.float32]) -> dict[str, Any]:
    import numpy as np

    got = np.concatenate([session.run(["logits"], {"image": tensors[i : i + 1]})[0] for i in range(len(tensors))])
    if got.shape != reference.shape:
        raise RunnerError(
            f"golden logits: the model gives {list(got.shape)}, expected {list(reference.shape)}", ExitCode.ARTEFACT
        )
    finite = bool(np.isfinite(got).all())
    return {
        "max_abs": float(np.abs(got.astype(np.float64) - reference).max()) if finite else None,
        "bit_equal": got.tobytes() == reference.tobytes(),
        "finite": finite,
        "top1_changed": int((got.argmax(axis=1) != reference.argmax(axis=1)).sum()),
    }
