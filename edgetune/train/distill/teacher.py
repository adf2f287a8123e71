"""What a teacher is, and what all teachers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgetune.device.heads import Head, column_names
from edgetune.errors import DataError, Fault, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Teacher", "TeacherSource", "column_order", "require_channels", "resized", "shows_no_features"]

NAMES_SHOWN = 5


class Teacher(Protocol):
    """What looks at views and says what it sees."""

    @property
    def width(self) -> int:
        """Of its logits."""

    @property
    def feature_width(self) -> int | None:
        """Of its pooled features; None if it does not show them."""

    def logits(self, views: torch.Tensor) -> torch.Tensor:
        """Return logits float32 `[n, C]`, in the student's order, of views float32 `[n, K, H, W]` in [0, 1]."""

    def features(self, views: torch.Tensor) -> torch.Tensor:
        """Return pooled features float32 `[n, G]` of views float32 `[n, K, H, W]` in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class TeacherSource:
    """A teacher that need not be in memory: where all answers are known, it never is.

    Attributes:
        identity: digest of its weights, its architecture and what it does to a view before it looks.
        description: who it is, in words.
        create: loads it; see `load`.
    """

    identity: str
    description: str
    create: Callable[[], Teacher]

    def load(self) -> Teacher:
        """Return the teacher; the random weights that a network is built with draw nothing from the run's random numbers."""
        import torch

        with torch.random.fork_rng(devices=[]):
            return self.create()


def column_order(teacher: Sequence[Head], student: Sequence[Head], name: str) -> list[int]:
    """Return which of a teacher's columns stands for each of the student's; each is found by its name.

    Args:
        teacher: its heads.
        student: its heads.
        name: of the teacher, for the message.

    Raises:
        DataError: the columns are not the same ones, or belong to another kind of task.
    """
    has, wants = column_names(teacher), column_names(student)
    kinds = dict(zip(has, (head.kind for head in teacher for _ in head.columns), strict=True))
    faults = [
        Fault(where="distill.teacher", problem=problem, got=_some(sorted(found)))
        for problem, found in (("does not know", set(wants) - set(has)), ("knows beside them", set(has) - set(wants)))
        if found
    ]
    own = (head.kind for head in student for _ in head.columns)
    faults += [
        Fault(where=column, problem="the teacher learnt another kind of task", got=kinds[column], expected=kind)
        for column, kind in zip(wants, own, strict=True)
        if kinds.get(column, kind) != kind
    ]
    if faults:
        raise DataError(
            f"{name} does not answer what the student is asked", faults=faults, remedy="give a teacher of the same classes"
        )
    return [has.index(column) for column in wants]


def require_channels(views: torch.Tensor, channels: int) -> None:
    """Raise unless views `[n, K, H, W]` have the channels that a teacher takes.

    Raises:
        DataError: they do not.
    """
    if views.shape[1] != channels:
        raise DataError(
            f"the teacher takes images of {channels} channels, these have {views.shape[1]}",
            remedy="give a teacher of as many channels as data.channels",
        )


def resized(views: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return views `[n, K, H, W]` at the height and width that a teacher takes: bilinear, with antialiasing."""
    import torch.nn.functional as F

    if tuple(views.shape[2:]) == size:
        return views
    return F.interpolate(views, size=size, mode="bilinear", antialias=True, align_corners=False)


def shows_no_features(name: str) -> UsageError:
    """Return the error of a teacher that is asked for features and has none to show."""
    remedy = "set distill.loss = dist, or give a checkpoint as the teacher"
    return UsageError(f"the teacher {name} does not show its features", remedy=remedy)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
