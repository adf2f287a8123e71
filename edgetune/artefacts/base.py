"""What all values that cross a stage have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

from edgetune.device.heads import Head, column_names, default_heads

__all__ = ["Artefact", "WithHeads"]


class Artefact(BaseModel):
    """A value that crosses from one stage to the next. Frozen; its files lie in `folder`.

    `folder` is not part of the stored value: it is where the value was loaded from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    stage: ClassVar[str]
    _folder: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path:
        """The folder that holds the files of this value."""
        if self._folder is None:
            raise ValueError(f"{type(self).__name__} is not bound to a folder; call .at(folder)")
        return self._folder

    def at(self, folder: Path) -> Self:
        """Return the same value, bound to the folder that holds its files."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def to_json(self) -> dict[str, Any]:
        """Return the value as JSON types."""
        return self.model_dump(mode="json")


class WithHeads(Artefact):
    """A value that speaks of a network's output.

    Attributes:
        classes: a name for every logit, in their order: of the classes, or of labels and values; see `column_names`.
        heads: the tasks and which logits belong to each; one of a single label over all classes unless it is given.
    """

    classes: tuple[str, ...]
    heads: tuple[Head, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _one_head_by_default(cls, content: Any) -> Any:
        if isinstance(content, dict) and not content.get("heads"):
            return {**content, "heads": default_heads(content.get("classes", ()))}
        return content

    @model_validator(mode="after")
    def _heads_fit_classes(self) -> Self:
        if self.classes != column_names(self.heads):
            raise ValueError("the names of the classes are not those of the heads' columns")
        return self

    @property
    def is_classifier(self) -> bool:
        """Whether the only task is to choose one of several classes."""
        return [head.kind for head in self.heads] == ["single-label"]
