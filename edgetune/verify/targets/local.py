"""This machine as the target: the runner in a process of its own, as it would run on a board."""

from __future__ import annotations

import sys

from edgetune.transport.local import LocalLink
from edgetune.verify.targets.linked import MEASURE_DEADLINE_S, LinkedTarget

__all__ = ["LocalTarget"]


class LocalTarget(LinkedTarget):
    """Measures on this machine.

    Args:
        python: the interpreter that runs the runner; it needs numpy and onnxruntime.
        deadline_s: after so many seconds a measurement is ended and counts as failed.
    """

    def __init__(self, python: str = sys.executable, *, deadline_s: float = MEASURE_DEADLINE_S) -> None:
        super().__init__(LocalLink(python), deadline_s=deadline_s)
