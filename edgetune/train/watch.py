"""Who is told how a training goes: TensorBoard by event files, MLflow by its server. Neither changes or stops the training.

The x axis is the same everywhere: how many steps are done since the training began, so that a resumed training goes on where
its state was saved. TensorBoard's files hide what was written after that state; MLflow keeps those points twice, equal ones.
"""

from __future__ import annotations

import errno
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgetune.train.tracking import MLflow, first_line

if TYPE_CHECKING:
    from edgetune.progress import Progress
    from edgetune.recipe import WatchRecipe

__all__ = ["STEPS_APART", "Nobody", "Watch", "open_watch"]

STEPS_APART = 10
"""Of so many steps one is passed on."""


class Watch(Protocol):
    """Somebody who is told how a training goes."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Hear of a step; may be called at each.

        Args:
            step: how many are done since the training began: the first is 1.
            values: by tag, as `train/loss`.
        """

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Hear of the end of an epoch, after its last step; 0 is before the first.

        Args:
            epoch: how many are done.
            values: by tag, as `val/loss`.
        """

    def close(self, *, complete: bool = True) -> None:
        """Hear that there is nothing more to come.

        Args:
            complete: whether the training came to its end; false after an interruption or an error.
        """


class Nobody:
    """Watches nothing."""

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Drop the news."""

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Drop the news."""

    def close(self, *, complete: bool = True) -> None:
        """Do nothing."""


def open_watch(
    recipe: WatchRecipe, folder: Path | None, name: str, *, from_step: int, settings: Mapping[str, Any], progress: Progress
) -> Watch:
    """Return whom the recipe wants to be told, in one.

    Args:
        recipe: who.
        folder: everything is written into its folder `name`; None writes nothing here, so that TensorBoard has nothing to read.
        name: of the training.
        from_step: how many steps are done in the state that the training goes on from; 0 for a new one.
        settings: what the training is done with, shown beside the curves; tables may be nested.
        progress: told once of a watcher that fails; the training goes on without it.

    Raises:
        UsageError: MLflow is wanted, but is not installed, or cannot be reached as the training begins.
    """
    place = folder / name if folder else None
    places: dict[str, _Place] = {}
    if recipe.mlflow:
        places["MLflow"] = MLflow(recipe.mlflow, place, name, from_step=from_step, settings=settings)
    if recipe.tensorboard and place:
        try:
            places["TensorBoard"] = _TensorBoard(place, from_step=from_step, settings=settings)
        except (OSError, ImportError) as fault:
            progress.line(f"warning: no event files for TensorBoard: {fault}")
    return _Everywhere(places, from_step, progress) if places else Nobody()


class _Place(Protocol):
    """Somewhere that points of curves are kept."""

    def write(self, step: int, values: Mapping[str, float], *, wait: bool) -> None:
        """Keep a point of each curve; `wait` until a kill cannot lose it."""

    def close(self, *, complete: bool) -> None:
        """Keep what is still to be kept."""


class _Everywhere:
    """Passes one step of ten and each epoch on to several places; says once that one fails, and leaves it out from then on."""

    def __init__(self, places: dict[str, _Place], from_step: int, progress: Progress) -> None:
        self.places, self.now, self.progress = places, from_step, progress

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self.now = step
        if step == 1 or step % STEPS_APART == 0:
            self._each(lambda place: place.write(step, values, wait=False))

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self._each(lambda place: place.write(self.now, {**values, "epoch": epoch}, wait=True))

    def close(self, *, complete: bool = True) -> None:
        self._each(lambda place: place.close(complete=complete))
        self.places = {}

    def _each(self, tell: Callable[[_Place], None]) -> None:
        for name, place in list(self.places.items()):
            try:
                tell(place)
            except Exception as fault:  # Whatever it is: hours of training are worth more than their curves.
                self.progress.line(f"warning: {name} hears no more of this training: {first_line(fault)}")
                del self.places[name]


class _TensorBoard:
    """Writes event files.

    They are written here, not by torch's SummaryWriter: that one's thread prints a traceback when the disk is full.

    Args:
        folder: of this training; what earlier runs of it wrote stays.
        from_step: what was written of later steps is hidden; 0 hides everything.
        settings: shown under Text.

    Raises:
        OSError: nothing can be written there.
    """

    def __init__(self, folder: Path, *, from_step: int, settings: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        self.path = folder / f"events.out.tfevents.{time.time_ns():020d}.edgetune"
        self._record(file_version="brain.Event:2")
        # A start at a step hides every point from that step on.
        first = from_step + 1 if from_step else 0
        self._record(step=first, session_log=SessionLog(status=SessionLog.START))
        if not from_step:
            self._record(step=0, summary=_text("settings", json.dumps(settings, indent=2, default=str)))

    def write(self, step: int, values: Mapping[str, float], *, wait: bool) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._record(step=step, summary=Summary(value=points))

    def close(self, *, complete: bool) -> None:
        pass  # Nothing is open.

    def _record(self, **content: Any) -> None:
        """Append an event; the file is opened each time, so that it can be read at once and a kill loses nothing."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **content).SerializeToString())
        with self.path.open("ab", buffering=0) as file:
            if file.write(record.getbuffer()) < record.tell():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


def _text(tag: str, content: str) -> Any:
    """Return a summary that TensorBoard shows under Text, in a fixed-width font."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.util.tensor_util import make_tensor_proto

    markdown = "\n".join(f"    {line}" for line in content.splitlines())
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto([markdown]))])
