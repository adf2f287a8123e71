"""Where a test may end the process as a power cut would: after each step that leaves something on the disk."""

from __future__ import annotations

import os
import signal

VARIABLE = "EDGETUNE_CRASH_AFTER"
STEPS = (
    "received",
    "checked",
    "synced",
    "verified",
    "renamed",
    "installed",
    "proven",
    "timed",
    "tried",
    "switched",
    "restarted",
    "healthy",
    "committed",
    "retained",
)
"""Of an installation, in their order."""
BACK_STEPS = ("back-switched", "back-restarted", "back-stated")
"""Of a way back, in their order."""


def reached(step: str) -> None:
    """Die by SIGKILL if the environment names this step, or say so and stand still for `STEP:stop`; else do nothing."""
    asked = os.environ.get(VARIABLE)
    if asked == step:
        os.kill(os.getpid(), signal.SIGKILL)
    if asked == step + ":stop":
        os.write(2, (step + "\n").encode("ascii"))
        os.kill(os.getpid(), signal.SIGSTOP)
