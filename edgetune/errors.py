"""The one tree of errors that edgetune raises on purpose.

Each class has an exit code; each instance says what is wrong, what was got, what was expected and what to do::

    EdgetuneError                        1   never raised itself
    ├── UsageError                       2   the command line
    │   ├── RecipeError                  2   a recipe, with all of its faults
    │   ├── ProfileError                 2   a profile, with all of its faults
    │   ├── WeightsError                 2   pretrained weights that are not at hand or do not fit
    │   ├── GraphError                   2   an ONNX graph or network that cannot be exported or quantized
    │   ├── TrainingDiverged             2   a loss that is not a number
    │   └── Busy                         2   another process works in the same run folder
    ├── TargetError                      3   the device, or an execution provider on it, is not available
    ├── ArtefactError                    4   a file of ours is corrupt, tampered with or of an unknown schema
    ├── DataError                        5   the images cannot be used, with all of their faults
    ├── TakenBack                       10   a device went back to its release before, by itself
    └── Interrupted                    130   a signal; running the same command again resumes

Anything else that escapes is a bug: exit code 1 and a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.device.exitcodes import ExitCode

__all__ = [
    "ArtefactError",
    "Busy",
    "DataError",
    "EdgetuneError",
    "ExitCode",
    "Fault",
    "GraphError",
    "Interrupted",
    "ProfileError",
    "RecipeError",
    "TakenBack",
    "TargetError",
    "TrainingDiverged",
    "UsageError",
    "WeightsError",
]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with one place of an input.

    Attributes:
        where: the place: a dotted key, a path below the data folder, a node of a graph.
        problem: what is wrong.
        got: what was found there, if it can be shown.
        expected: what would have been right.
        hint: what to do, such as the nearest known key.
    """

    where: str
    problem: str
    got: str = ""
    expected: str = ""
    hint: str = ""

    def __str__(self) -> str:
        """Return the fault as one line."""
        parts = [f"{self.where}: {self.problem}" if self.where else self.problem]
        parts += [f"got {self.got}"] if self.got else []
        parts += [f"expected {self.expected}"] if self.expected else []
        return "; ".join(parts) + (f" ({self.hint})" if self.hint else "")


class EdgetuneError(Exception):
    """The root of the tree.

    Args:
        message: what is wrong, in one sentence.
        faults: the single faults behind it, all of them.
        remedy: what the user should do.
    """

    exit_code = ExitCode.UNFORESEEN

    def __init__(self, message: str, *, faults: Sequence[Fault] = (), remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)
        self.remedy = remedy

    def __str__(self) -> str:
        """Return the message, the faults below it and the remedy, one per line."""
        lines = [self.message, *(f"  - {fault}" for fault in self.faults)]
        return "\n".join(lines + ([f"  → {self.remedy}"] if self.remedy else []))


class UsageError(EdgetuneError):
    """The command or its configuration cannot be honoured."""

    exit_code = ExitCode.USAGE


class RecipeError(UsageError):
    """A recipe is not valid."""


class ProfileError(UsageError):
    """A profile is not valid or not known."""


class WeightsError(UsageError):
    """Pretrained weights are not at hand, not safe to load, or do not fit the network."""


class TrainingDiverged(UsageError):
    """The loss or the weights stopped being numbers."""


class Busy(UsageError):
    """Another process holds the lock of the run folder."""


class GraphError(UsageError):
    """A network or an ONNX graph cannot be exported, rewritten or quantized."""


class TargetError(EdgetuneError):
    """The device or an execution provider is not available, or is not what the profile says."""

    exit_code = ExitCode.TARGET


class ArtefactError(EdgetuneError):
    """A file that edgetune wrote is corrupt, missing, tampered with or of an unknown schema."""

    exit_code = ExitCode.ARTEFACT


class DataError(EdgetuneError):
    """The images cannot be used as they are."""

    exit_code = ExitCode.DATA


class TakenBack(EdgetuneError):
    """A device tried a release, did not find it well, and went back to the one before."""

    exit_code = ExitCode.BROKEN


class Interrupted(EdgetuneError):
    """A signal asked for the end; what was done so far is kept."""

    exit_code = ExitCode.INTERRUPTED
