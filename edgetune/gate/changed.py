"""The decisions that are others now: which images, worst first, and their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.artefacts import Head
from edgetune.artefacts.comparison import ChangedDecision
from edgetune.device.decisions import decisions, sigmoid
from edgetune.device.heads import SINGLE_LABEL, columns_of, targets_of
from edgetune.files import write_atomic
from edgetune.verify.metrics import softmax

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Decided = npt.NDArray[np.int64]

__all__ = ["changed_decisions", "changed_labels", "draw", "forget", "worst_first"]

SEVERITY = ("lost", "other", "gained")
FOLDER = "changed"
SMALLEST_SIDE = 96
"""Pictures smaller than that are enlarged, pixel by pixel, so that a person sees something."""


def changed_decisions(
    baseline: Logits, candidate: Logits, targets: npt.NDArray[np.float32], names: Sequence[str], heads: Sequence[Head]
) -> list[ChangedDecision]:
    """Return every image and head about which the two decide otherwise, worst first; a regression decides nothing.

    Args:
        baseline: float32 `[N, C]`, all finite.
        candidate: likewise, with the columns in the same order.
        targets: float32 `[N, T]`, NaN where not known.
        names: of the images.
        heads: what the columns mean.
    """
    found: list[ChangedDecision] = []
    for head, columns, place in zip(heads, columns_of(heads), targets_of(heads), strict=True):
        title = head.name if len(heads) > 1 else ""
        first, second = decisions(baseline[:, columns], head), decisions(candidate[:, columns], head)
        if head.kind == SINGLE_LABEL:
            probabilities = softmax(candidate[:, columns])
            rows = np.arange(len(names))
            margins = probabilities[rows, second[:, 0]] - probabilities[rows, first[:, 0]]
            found += changed_labels(first[:, 0], second[:, 0], targets[:, place][:, 0], names, head.columns, title, margins)
        else:
            found += _labels(first, second, candidate[:, columns], targets[:, place], names, head, title)
    return worst_first(found)


def worst_first(found: Sequence[ChangedDecision]) -> list[ChangedDecision]:
    """Return decisions in the order in which a person should look: those lost, by how sure the candidate is of its own."""
    return sorted(found, key=lambda one: (SEVERITY.index(one.effect), -(one.margin or 0.0), one.index, one.head))


def changed_labels(
    first: Decided,
    second: Decided,
    right: npt.NDArray[np.float32],
    names: Sequence[str],
    classes: Sequence[str],
    head: str = "",
    margins: npt.NDArray[np.float64] | None = None,
) -> list[ChangedDecision]:
    """Return the images of which the class is another one.

    Args:
        first: the baseline's decisions, `[N]`.
        second: the candidate's, `[N]`.
        right: the classes' indices, `[N]`; NaN where not known.
        names: of the images.
        classes: their names.
        head: the task, where there are several.
        margins: `[N]`, see `ChangedDecision.margin`.
    """
    return [
        ChangedDecision(
            image=_utf8(names[int(index)]),
            index=int(index),
            head=head,
            label=classes[int(right[index])] if np.isfinite(right[index]) else "",
            baseline=classes[int(first[index])],
            candidate=classes[int(second[index])],
            effect="lost" if first[index] == right[index] else "gained" if second[index] == right[index] else "other",
            margin=None if margins is None else round(float(margins[index]), 6),
        )
        for index in np.flatnonzero(first != second)
    ]


def _labels(
    first: Decided,
    second: Decided,
    candidate: Logits,
    targets: npt.NDArray[np.float32],
    names: Sequence[str],
    head: Head,
    title: str,
) -> Iterator[ChangedDecision]:
    """Yield each label of an image that is decided otherwise; the margin is how far its probability is from a half."""
    for index, column in np.argwhere(first != second):
        right, label = targets[index, column], head.columns[column]
        yes, no = label, f"no {label}"
        yield ChangedDecision(
            image=_utf8(names[int(index)]),
            index=int(index),
            head=title,
            label=(yes if right == 1 else no) if np.isfinite(right) else "",
            baseline=yes if first[index, column] else no,
            candidate=yes if second[index, column] else no,
            effect="other" if not np.isfinite(right) else "lost" if first[index, column] == right else "gained",
            margin=round(abs(2 * float(sigmoid(candidate[index, column])) - 1), 6),
        )


def _utf8(name: str) -> str:
    """Return a name of any bytes as text that every file can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def forget(folder: Path) -> None:
    """Remove the pictures of an earlier comparison from the folder of a report."""
    for path in (folder / FOLDER).glob("[0-9]*.png"):
        path.unlink()


def draw(changed: Sequence[ChangedDecision], images: Path, folder: Path) -> list[ChangedDecision]:
    """Write the pictures as the model saw them, once for each image, and return the decisions with the pictures' names.

    Args:
        changed: the decisions.
        images: an .npy file, uint8 `[N, H, W, K]`; cameras with other than 1 or 3 channels have no picture.
        folder: of the report.
    """
    from edgetune.data.png import stored_png

    pixels = np.load(images, mmap_mode="r", allow_pickle=False)
    if pixels.shape[3] not in (1, 3):
        return list(changed)
    written: dict[int, str] = {}
    for one in changed:
        if one.index not in written:
            name = f"{FOLDER}/{one.index:06}.png"
            image = np.array(pixels[one.index])
            times = -(-SMALLEST_SIDE // max(image.shape[:2]))
            large = image.repeat(times, axis=0).repeat(times, axis=1)
            height, width, channels = large.shape
            write_atomic(folder / name, stored_png(large.tobytes(), width, height, channels))
            written[one.index] = name
    return [one.model_copy(update={"picture": written[one.index]}) for one in changed]
