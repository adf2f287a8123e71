"""A run that begins with a user's ONNX file: the straight line without its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from edgetune.artefacts import Checkpoint, Dataset, OnnxModel
from edgetune.errors import DataError, UsageError
from edgetune.files import write_atomic
from edgetune.keys import NOT_THE_IMAGES, REVISIONS, versions
from edgetune.origin import Origin
from edgetune.outside.given import Given, Pixels
from edgetune.outside.importing import bring_in
from edgetune.outside.labelled import data_for, is_part_of, named, numbered_as, require_same_heads, tasks_of
from edgetune.outside.reading import ModelFile, read_file
from edgetune.pipeline import GIVEN, Run
from edgetune.stagecache import identity

__all__ = ["Brought", "FileRun"]


@dataclass(frozen=True, kw_only=True)
class FileRun(Run):
    """A run whose fp32 file comes from a user's.

    Attributes:
        given: what the user says of the file.
        file: what the file is.
    """

    given: Given
    file: ModelFile

    @classmethod
    def of(cls, run: Run, given: Given) -> FileRun:
        """Return the run of a file, with the images and for the target of another run.

        The images are prepared as the file expects them; what is known of them comes from the run's tasks, or from the file's
        own if it has none.

        Raises:
            UsageError: something was given that the file says itself or otherwise.
            GraphError: the file cannot be used; with every reason.
        """
        recipe = run.recipe
        file = read_file(given, recipe.data, run.profile.model)
        given.pixels_for(file.image.channels)  # Numbers for other channels are refused before any image is decoded.
        adapted = {"data": data_for(file.preprocessing, recipe.data), "tasks": recipe.tasks or tasks_of(file.heads)}
        return cls(
            recipe=recipe.model_copy(update=adapted),
            profile=run.profile,
            folder=run.folder,
            progress=run.progress,
            stop=run.stop,
            given=given,
            file=file,
        )

    def begun(self) -> Self:
        """Return this run with the recipe and the file's `model.toml` stored; see `Run.begun`."""
        super().begun()
        write_atomic(self.folder / GIVEN, self.given.to_toml().encode())
        return self

    @property
    def pixels(self) -> Pixels | None:
        """What was said of the pixels; None if nothing was."""
        return self.given.pixels_for(self.file.image.channels)

    @cached_property
    def dataset(self) -> Dataset:
        """The decoded and split images, their labels counted as the file's outputs are.

        Raises:
            DataError: the file has other classes.
        """
        found, heads = super().dataset, self.file.heads
        if not heads:
            self._require_a_score_for_each(found)
            return found
        if not is_part_of(found, heads):
            require_same_heads(found, heads, "model")
            return found
        depends = {"images": identity(found), "classes": list(heads[0].columns), "versions": versions("numpy")}
        return self.cache.value(Dataset, "labels", depends, lambda folder, _key: numbered_as(heads, found, folder))

    def _require_a_score_for_each(self, dataset: Dataset) -> None:
        if not dataset.is_classifier or len(dataset.classes) != self.file.columns:
            raise DataError(
                f"{self.file.path.name} gives {self.file.columns} scores; the images are of {len(dataset.classes)} classes",
                remedy="name the class of each score with --labels FILE, one a line; the folders may be some of them",
            )
        self.progress.line(f"the scores are taken for the folders in order: {named(dataset.classes)}")

    @property
    def checkpoint(self) -> Checkpoint:
        """There is none.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{self.folder} began with {self.file.path.name}, not with training: there is no checkpoint",
            remedy="choose another --output to train a network",
        )

    @cached_property
    def origin(self) -> Origin:
        """The file, for report and bundle."""
        return Brought(self)

    @cached_property
    def fp32(self) -> OnnxModel:
        """The user's file, brought to the contract."""
        pixels = self.pixels
        depends = {
            "revision": REVISIONS["import"],
            "file": self.file.digest,
            "output": self.file.output,
            "image": [self.file.image.height, self.file.image.width],
            "preprocessing": self.file.preprocessing.to_dict(),
            "pixels": pixels.to_json() if pixels else None,
            "images": identity(self.dataset, ignore=NOT_THE_IMAGES),
            "recipe": self.recipe.export.model_dump(mode="json"),
            "caps": self.profile.model.model_dump(mode="json"),
            "provenance": self.provenance,
        }

        def compute(folder: Path, _key: str) -> OnnxModel:
            return bring_in(
                self.file,
                pixels,
                self.dataset,
                self.recipe.export,
                self.profile.model,
                provenance=self.provenance,
                folder=folder,
                progress=self.progress,
            )

        return self.cache.value(OnnxModel, "import", depends, compute)


@dataclass(frozen=True)
class Brought:
    """A file that a user brought along."""

    run: FileRun
    command: str = "edgetune quantize RUN"

    @property
    def reference(self) -> str:
        """The file as it was given; one of ours was compared with torch when it was exported."""
        return "torch" if self.run.file.ours else "given file"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.run.file.path.stem

    @property
    def provenance(self) -> dict[str, str]:
        """The file's digest, and what one of ours says of its own making."""
        file = self.run.file
        earlier = {f"model_{key}": str(value) for key, value in file.provenance.items()}
        # With weights in files of their own, the file's digest alone does not say what was read.
        apart = {"model_and_weights_sha256": file.digest} if file.apart else {}
        return {"model_file": file.path.name, "model_sha256": file.sha256, **apart, **earlier}

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: those of the stage are with its file."""
        return ()

    def sections(self) -> dict[str, Mapping[str, Any]]:
        """Return what the file is and what was said of it."""
        file, given, pixels = self.run.file, self.run.given, self.run.pixels
        image = file.image
        shape = f"{image.height} x {image.width} x {image.channels}, batch {image.batch or 'any'}"
        return {
            "model": {
                "file": file.path.name,
                "sha256": file.sha256,
                "input": f"{image.name}: {image.kind} {image.layout}, {shape}",
                "output": f"{file.output}: {file.columns} scores",
                "pixels": pixels.to_json() if pixels else "bytes; the graph scales them",
                "preprocessing": file.preprocessing.to_dict(),
                "names of the classes": self._names(given),
            }
        }

    def _names(self, given: Given) -> str:
        if self.run.file.ours:
            return "the file's own"
        return f"from {Path(given.labels).name}" if given.labels else "the sorted names of the folders"

    def depends(self) -> dict[str, Any]:
        """Return what the section is made of."""
        return {"model": self.sections(), "command": self.command}
