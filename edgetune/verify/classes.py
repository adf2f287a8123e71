"""Whether any single class lost too much, where there are many of them to be wrong about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import VerdictName, VerdictRow
from edgetune.verify.rows import undecided
from edgetune.verify.statistics import PairedDrop, drop_chance, images_needed, paired_drop

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Right = npt.NDArray[np.bool_]

__all__ = ["per_class"]

ALPHA = 0.05
SHOWN = 3
"""Classes that are named."""


def per_class(
    baseline: Right, candidate: Right, labels: npt.NDArray[np.int64], classes: Sequence[str], tolerance_points: float, name: str
) -> VerdictRow:
    """Judge whether any class lost more of its images than a tolerance.

    BROKEN: some class did, beyond what chance explains in any of them: Tango's test and the exact binomial tail at 5 % for all
    classes together, by Holm's step-down (Holm 1979). KEPT: every class is confirmed to be within the tolerance; that all must
    be so needs no correction. A class without images is left out.

    Args:
        baseline: `[N]`, whether the baseline is right.
        candidate: `[N]`, whether the candidate is.
        labels: int64 `[N]`, what is right.
        classes: the names.
        tolerance_points: the allowed drop within a class, in points.
        name: of the row.
    """
    tolerance = tolerance_points / 100
    limit = f"≤ {tolerance_points:g} points in each class"
    found: dict[str, PairedDrop] = {}
    chances: dict[str, float] = {}
    for index, label in enumerate(classes):
        own = labels == index
        if not own.any():
            continue
        lost, gained = int((baseline & ~candidate)[own].sum()), int((~baseline & candidate)[own].sum())
        found[label] = paired_drop(lost, gained, int(own.sum()), tolerance)
        chances[label] = drop_chance(lost, gained, int(own.sum()), tolerance)
    if not found:
        return undecided("accuracy", name, "no image has a known class", limit)
    broken = _holm(chances)
    open_ = [label for label in found if found[label].verdict != "KEPT"]
    verdict: VerdictName = "BROKEN" if broken else "INCONCLUSIVE" if open_ else "KEPT"
    worst = min(found, key=lambda label: (label not in broken, -found[label].drop_points, chances[label]))
    one = found[worst]
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=verdict,
        figure=f"worst class {worst}: {one.drop_points:+.2f} points lost [{one.low_points:+.2f}, {one.high_points:+.2f}]",
        limit=limit,
        reason=_reason(broken, open_, found, images_needed(tolerance)),
        data=_data(found, chances, broken, tolerance_points),
    )


def _holm(chances: Mapping[str, float]) -> list[str]:
    """Return the names whose chance is too small to be one among so many, the least likely first."""
    rejected = []
    for place, label in enumerate(sorted(chances, key=lambda label: chances[label])):
        if chances[label] >= ALPHA / (len(chances) - place):
            break
        rejected.append(label)
    return rejected


def _reason(broken: Sequence[str], open_: Sequence[str], found: Mapping[str, PairedDrop], needed: int) -> str:
    if broken:
        drops = ", ".join(f"{label} ({found[label].drop_points:.1f} points)" for label in broken[:SHOWN])
        more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        return f"beyond what chance explains among {len(found)} classes: {drops}{more}"
    few = [label for label in open_ if found[label].images < needed]
    if few:
        return f"{len(few)} of {len(found)} classes have fewer than the {needed} images that could confirm it: {_first(few)}"
    return f"cannot be told for {len(open_)} of {len(found)} classes: {_first(open_)}" if open_ else ""


def _first(labels: Sequence[str]) -> str:
    return ", ".join(labels[:SHOWN]) + (" …" if len(labels) > SHOWN else "")


def _data(
    found: Mapping[str, PairedDrop], chances: Mapping[str, float], broken: Sequence[str], tolerance_points: float
) -> dict[str, Any]:
    smallest = max(one.smallest_drop_points for one in found.values())
    fewest, most = (pick(one.images for one in found.values()) for pick in (min, max))
    return {
        "test": "Tango score and exact binomial, Holm",
        "tolerance_points": tolerance_points,
        "samples": f"{fewest} to {most} images a class" if fewest != most else f"{fewest} images a class",
        "smallest": f"{smallest:.2f} points",
        "broken": list(broken),
        "classes": {
            label: {"chance": chances[label] if math.isfinite(chances[label]) else None, **asdict(one)}
            for label, one in found.items()
        },
    }
