"""Whether one model says the same on several processors: every pair of devices on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Head
from edgetune.device.decisions import changed
from edgetune.device.heads import SINGLE_LABEL, columns_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]

__all__ = ["agreements", "margins"]


def agreements(logits: Mapping[str, Logits], heads: Sequence[Head]) -> list[dict[str, Any]]:
    """Return one entry for each pair of devices.

    Args:
        logits: per device, of the same images in the same order: float32 `[N, C]`.
        heads: what the columns mean.

    Returns:
        `devices` (both names), `images`, `changed` (images that the two decide differently), `agreement_percent`,
        `largest_difference` (of two logits, whichever), `bit_equal`, and `changed_margin`: the largest margin between the two
        best classes, on the first of the two devices, at which a decision was another one; None where none was.
    """
    import numpy as np

    found = []
    for one, other in combinations(logits, 2):
        first, second = logits[one], logits[other]
        differs = changed(first, second, heads)
        margin = margins(first, heads)
        found.append(
            {
                "devices": [one, other],
                "images": len(first),
                "changed": int(differs.sum()),
                "agreement_percent": 100.0 * float(1.0 - differs.mean()),
                "largest_difference": float(np.abs(first.astype(np.float64) - second).max()),
                "bit_equal": bool(np.array_equal(first.view(np.uint32), second.view(np.uint32))),
                "changed_margin": None if margin is None or not differs.any() else float(margin[differs].max()),
            }
        )
    return found


def margins(logits: Logits, heads: Sequence[Head]) -> npt.NDArray[np.float64] | None:
    """Return, per image, by how much the best class leads the second: float64 `[N]`.

    The least of all heads that choose a class; None where no head does.
    """
    import numpy as np

    leads = []
    for head, columns in zip(heads, columns_of(heads), strict=True):
        if head.kind == SINGLE_LABEL and len(head.columns) > 1:
            best = np.sort(logits[:, columns].astype(np.float64), axis=1)
            leads.append(best[:, -1] - best[:, -2])
    return np.min(leads, axis=0) if leads else None
