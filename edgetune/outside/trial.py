"""A user's graph run on labelled images as it stands: what its pixels are, and whether its classes are in our order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgetune.device.session import one_line
from edgetune.errors import Fault, GraphError, UsageError
from edgetune.outside.given import PRESETS, Pixels, preset

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from edgetune.artefacts import Dataset
    from edgetune.outside.reading import ModelFile

    Images = npt.NDArray[np.uint8]
    Logits = npt.NDArray[np.float32]

__all__ = ["LOOKED_AT", "Original", "chance_warning", "refuse_to_guess", "some_images"]

LOOKED_AT = 256
"""Images that are looked at: enough to tell a network that knows its classes from one that does not."""
SURE = 0.05


class Original:
    """A graph with the input that its maker gave it.

    Args:
        logits: of `edgetune.outside.contract.only_logits`.
        file: where it came from.

    Raises:
        GraphError: ONNX Runtime cannot open it.
    """

    def __init__(self, logits: onnx.ModelProto, file: ModelFile) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self._file = file
        try:
            # ONNX Runtime's own exceptions have no common root but Exception.
            self._session = onnxruntime.InferenceSession(
                logits.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as fault:
            raise GraphError(f"{file.path.name} cannot be opened by ONNX Runtime: {one_line(fault)}") from fault
        self._input = self._session.get_inputs()[0].name

    def logits(self, images: Images, pixels: Pixels | None) -> Logits:
        """Return what the graph says of images `[N, H, W, K]`: float32 `[N, C]`.

        The preprocessing is written out here, independent of the entry that the contract puts in front.

        Raises:
            GraphError: ONNX Runtime cannot compute it.
        """
        import numpy as np

        image = self._file.image
        size = image.batch or 1
        found = []
        for first in range(0, len(images), size):
            some = images[first : first + size]
            batch = some[np.arange(size) % len(some)]
            values: Any = batch if pixels is None else _normalised(batch, pixels)
            values = values if image.layout == "NHWC" else np.ascontiguousarray(values.transpose(0, 3, 1, 2))
            try:
                found.append(self._session.run(["logits"], {self._input: values})[0][: len(some)])
            except Exception as fault:
                raise GraphError(f"{self._file.path.name} cannot be run: {one_line(fault)}") from fault
        return np.concatenate(found)


def _normalised(images: Images, pixels: Pixels) -> npt.NDArray[np.float32]:
    import numpy as np

    mean, std = (np.array(values, np.float32) for values in (pixels.mean, pixels.std))
    result: npt.NDArray[np.float32] = (images.astype(np.float32) / np.float32(255.0) - mean) / std
    return result


def some_images(dataset: Dataset) -> tuple[Images, npt.NDArray[np.int64]]:
    """Return images to look at, with their labels: of the validation set, and of the train set if that has too few.

    Never test images: what is chosen by them would not be a claim any more.
    """
    import numpy as np

    from edgetune.numeric import spread_rows

    images, labels, left = [], [], LOOKED_AT
    for split in ("val", "train"):
        rows = spread_rows(dataset.counts[split], min(left, dataset.counts[split])) if left else []
        images.append(dataset.read(split, rows))
        labels.append(np.asarray(dataset.labels(split))[list(rows)])
        left -= len(rows)
    return np.concatenate(images), np.concatenate(labels)


def refuse_to_guess(file: ModelFile, original: Original, dataset: Dataset) -> UsageError:
    """Return the error for a file of which nobody says what pixels it expects, with what each preset reaches on images."""
    images, labels = some_images(dataset)
    hits = {}
    for name, (mean, _) in PRESETS.items():
        if len(mean) in (1, file.image.channels):
            decided = original.logits(images, preset(name, file.image.channels)).argmax(axis=1)
            hits[name] = int((decided == labels).sum())
    order = sorted(hits, key=lambda name: -hits[name])
    best, count = order[0], len(labels)
    lines = [Fault(where=f"--pixels {name}", problem=_share(hits[name], count)) for name in order]
    message = f"{file.path.name} does not say what pixels it expects, and a guess would not be noticed"
    if _by_chance(hits[best], labels) > SURE:
        remedy = (
            "none is better than chance: the order of the classes may be another one (--labels FILE); else give --pixels, or "
            "--mean and --std, as the file's maker says"
        )
    else:
        remedy = f"give --pixels {best}, which is right most often here, or what the file's maker says; or --mean and --std"
    return UsageError(message, faults=lines, remedy=remedy)


def _share(hits: int, count: int) -> str:
    return f"top-1 {100 * hits / count:6.2f} % of {count} images"


def chance_warning(logits: Logits, labels: npt.NDArray[np.int64], name: str) -> tuple[str, ...]:
    """Return a warning if decisions are no better than chance, by an exact binomial test; else nothing.

    Args:
        logits: float32 `[N, C]`.
        labels: int64 `[N]`.
        name: of the file.
    """
    hits = int((logits.argmax(axis=1) == labels).sum())
    p = _by_chance(hits, labels)
    if p <= SURE:
        return ()
    return (
        f"{name} decides {hits} of {len(labels)} images right, which is no better than chance (p = {p:.2g}): its classes may "
        "be in another order (see --labels), or it expects other pixels (see --pixels) or another data.resize",
    )


def _by_chance(hits: int, labels: npt.NDArray[np.int64]) -> float:
    """Return the probability of so many hits or more for one who always names the commonest class: the exact binomial tail."""
    import numpy as np

    count = len(labels)
    p = float(np.bincount(labels).max()) / count
    return math.fsum(math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(hits, count + 1))
