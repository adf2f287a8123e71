"""The pictures of a judgement: what was taken for what, and how far values are off."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.artefacts import Figures, Measurement, Report, TaskFigures
from edgetune.device.heads import Head, columns_of, targets_of
from edgetune.report.pictures import draw_confusion, draw_regression

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["illustrate"]

MOST_VALUES = 12
"""Regressions that are drawn, at most: of a head with hundreds of values nobody looks at each."""


def illustrate(
    report: Report, measurement: Measurement, targets: npt.NDArray[np.float32], heads: Sequence[Head], folder: Path
) -> list[str]:
    """Draw the shipped model's figures into a folder; return the pictures' names.

    Args:
        report: the judgement.
        measurement: the logits.
        targets: `[N, T]`, of the images measured.
        heads: the model's.
        folder: receives the pictures.
    """
    figures = report.figures.get(report.shipped)
    if figures is None:
        return []
    by_head = figures.heads if isinstance(figures, TaskFigures) else {heads[0].name: figures}
    logits = measurement.logits(report.shipped)
    names = []
    for head, columns, place in zip(heads, columns_of(heads), targets_of(heads), strict=True):
        found = by_head[head.name]
        suffix = "" if len(heads) == 1 else f"-{_plain(head.name)}"
        if isinstance(found, Figures):
            names.append(f"confusion{suffix}.png")
            draw_confusion(found.confusion, head.columns, folder / names[-1])
        elif head.kind == "regression":
            for index, value in enumerate(head.columns[:MOST_VALUES]):
                names.append(f"regression{suffix}-{index}-{_plain(value)}.png")
                truth, said = targets[:, place][:, index], logits[:, columns][:, index]
                draw_regression(truth.tolist(), said.tolist(), value, folder / names[-1])
    return names


def _plain(name: str) -> str:
    """Return a name that can stand in any file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:40] or "head"
