"""Images without labels, for distillation: found in a folder of any layout, kept away from validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.data.decoding import Seen
from edgetune.data.duplicates import Groups, near_duplicates
from edgetune.data.judge import Judgement
from edgetune.data.listing import Tree, shown, suffixes_for
from edgetune.data.source import Item, Source
from edgetune.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Unlabelled", "keep_unlabelled", "list_unlabelled"]


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """What is to be done with the images without labels.

    Attributes:
        kept: places of those that may be learnt from, in order; the labelled items come before them.
        copies: name of one that may not → the validation or test image that it is a copy of.
    """

    kept: tuple[int, ...]
    copies: dict[str, str]


def list_unlabelled(folder: str, channels: int) -> tuple[tuple[Item, ...], dict[str, str]]:
    """Return the images below a folder, whatever its layout, sorted by name, and what was passed over, with the reason.

    Args:
        folder: where they are.
        channels: of the images, which say what their names end in.

    Raises:
        DataError: there is no such folder, it cannot be read, or it has no image.
    """
    tree = Tree(root=Path(folder).expanduser(), suffixes=suffixes_for(channels))
    try:
        found = list(tree.images(tree.top()))
    except OSError as fault:
        raise DataError(
            f"data.unlabelled: {shown(folder)} cannot be read as a folder: {fault.strerror}",
            remedy="give data.unlabelled a folder of images, or leave it empty",
        ) from fault
    if not found:
        raise DataError(f"data.unlabelled: {shown(folder)} has no image in it", remedy="put images there, or leave it empty")
    items = (Item(name=f"unlabelled/{one.name}", label="", path=one.path, status=one.status) for one in found)
    skipped = {f"unlabelled/{name}": reason for name, reason in tree.skipped.items()}
    return tuple(sorted(items, key=lambda item: item.name)), skipped


def keep_unlabelled(
    source: Source, seen: Sequence[Seen], judgement: Judgement, thumbnails: npt.NDArray[np.uint8], bits: int
) -> Unlabelled:
    """Return which unlabelled images may be learnt from.

    A student that is taught on a test image has seen it, with or without its label.

    Args:
        source: has N items and U unlabelled ones.
        seen: what became of each of the N + U.
        judgement: which of the N are for validation and test.
        thumbnails: uint8 `[N + U, 32, 32, 3]`.
        bits: the largest distance of near-duplicates.
    """
    count = len(source.items)
    if count == len(seen):
        return Unlabelled(kept=(), copies={})
    offered = [place for place in range(count, len(seen)) if seen[place].state == "ok"]
    held = [*judgement.splits["val"], *judgement.splits["test"]]
    groups = Groups(len(seen))
    firsts: dict[str, int] = {}
    for place in [*held, *offered]:
        groups.join(firsts.setdefault(seen[place].pixels, place), place)
    near_duplicates(thumbnails, bits, groups, list(firsts.values()))
    # Of a group with a held image the representative is one: places of the labelled come before the others.
    copies = {groups.find(place) for place in held}
    names = [shown(item.name) for item in source.everything]
    return Unlabelled(
        kept=tuple(place for place in offered if groups.find(place) not in copies),
        copies={names[place]: names[groups.find(place)] for place in offered if groups.find(place) in copies},
    )
