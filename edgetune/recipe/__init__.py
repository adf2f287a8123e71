"""What to build: the recipe, a strict TOML file.

Every key has a default, so that an empty recipe is the embedded default: scikit-learn's digits for this machine. The
resolved recipe holds every key; it is stored with the run and replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from edgetune.errors import RecipeError
from edgetune.recipe.augment import AugmentRecipe
from edgetune.recipe.data import DataRecipe, TaskRecipe
from edgetune.recipe.deploy import ExportRecipe, QuantizeRecipe, VerifyRecipe
from edgetune.recipe.distill import DistillRecipe, WatchRecipe, is_teachers_path
from edgetune.recipe.model import ModelRecipe
from edgetune.recipe.train import TrainRecipe
from edgetune.schema import SCHEMA_VERSION, SchemaVersion, Strict, apply_settings, put, read_toml, to_toml, validate

__all__ = [
    "AugmentRecipe",
    "DataRecipe",
    "DistillRecipe",
    "ExportRecipe",
    "ModelRecipe",
    "QuantizeRecipe",
    "Recipe",
    "TaskRecipe",
    "TrainRecipe",
    "VerifyRecipe",
    "WatchRecipe",
    "is_teachers_path",
]

BUILT_IN_SOURCES = ("digits",)
MANIFESTS = (".csv", ".tsv", ".parquet")
"""How the name of a manifest ends."""
NAMED_SOURCES = "torchvision:"
"""How the name of one of torchvision's data sets begins."""
PATHS: dict[str, tuple[str, ...]] = {
    "data.source": BUILT_IN_SOURCES,
    "data.root": (),
    "data.unlabelled": (),
    "model.weights": ("auto", "none"),
    "distill.teacher": (),
    "distill.more_teachers": (),
    "distill.teacher_weights": ("auto", "none"),
    "target": ("host",),
}
"""Keys that hold a path or a list of them, each with the words that are not paths."""
IS_PATH: dict[str, Callable[[str], bool]] = {
    "target": lambda value: value.endswith(".toml"),
    "distill.teacher": is_teachers_path,
    "distill.more_teachers": is_teachers_path,
}
"""Keys that hold a name or a path: whether it is a path."""


class Recipe(Strict):
    """The whole file."""

    schema_: SchemaVersion = Field(default=1, alias="schema")
    """The version of this file's layout."""
    target: str = Field(default="host", min_length=1)
    """The board: a profile's name (see `edgetune profiles`) or the path of a profile file."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """All randomness comes from here."""
    data: DataRecipe = DataRecipe()
    tasks: dict[str, TaskRecipe] = Field(default_factory=dict)
    """What is to be learnt, a table `[tasks.NAME]` for each. None: one class per image, by its folder or its column `label`."""
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    distill: DistillRecipe = DistillRecipe()
    export: ExportRecipe = ExportRecipe()
    quantize: QuantizeRecipe = QuantizeRecipe()
    verify: VerifyRecipe = VerifyRecipe()
    watch: WatchRecipe = WatchRecipe()

    @model_validator(mode="after")
    def _splits_leave_a_train_set(self) -> Self:
        if self.data.val_fraction + self.data.test_fraction >= 0.9:
            raise ValueError("data.val_fraction + data.test_fraction must leave at least a tenth of the images to train on")
        return self

    @model_validator(mode="after")
    def _a_teacher_has_a_part(self) -> Self:
        if self.data.unlabelled and not self.distill.teacher:
            raise ValueError("data.unlabelled needs a teacher: give distill.teacher, or leave the images out")
        if self.distill.more_teachers and not self.distill.teacher:
            raise ValueError("distill.more_teachers needs a first one: give distill.teacher")
        several = self.distill.more_teachers or self.distill.used_teacher_members > 1
        if self.distill.teacher and self.distill.loss == "features" and several:
            raise ValueError(
                "features of several teachers have no mean: "
                "leave distill.more_teachers and distill.teacher_members out, or take another loss"
            )
        if self.distill.ablate and not self.distill.teacher:
            raise ValueError("distill.ablate needs a teacher to leave out: give distill.teacher")
        if self.distill.teacher and self.train.strategy == "linear-probe":
            raise ValueError(
                "a linear probe learns from labels alone: leave distill.teacher out, or take another train.strategy"
            )
        return self

    @model_validator(mode="after")
    def _teachers_are_called_once_and_what_is_told_of_them_counts(self) -> Self:
        teachers, told = self.distill.teachers, self.distill.told_of_named_teachers
        again = [name for place, name in enumerate(teachers) if name in teachers[:place]]
        if again:
            raise ValueError(
                f"distill.more_teachers: {again[0]} is there twice: leave it out; "
                "distill.teacher_members is how often a backbone is fine-tuned"
            )
        if self.distill.teacher_epochs == 0 and self.distill.used_teacher_members > 1:
            raise ValueError(
                f"distill.teacher_members is {self.distill.teacher_members} and distill.teacher_epochs is 0, "
                "but a linear probe comes out the same from every seed: leave one of them out"
            )
        if told and teachers and all(map(is_teachers_path, teachers)):
            raise ValueError(
                f"distill.{told[0]} is for teachers that are given by name, {teachers[0]} is a path: leave {told[0]} out"
            )
        if teachers and self.distill.teacher_taught_epochs != "auto" and self.distill.teacher_generations == 1:
            raise ValueError(
                "distill.teacher_taught_epochs is for the generations after the first, and there is only one: "
                "leave it out, or ask for distill.teacher_generations"
            )
        return self

    @classmethod
    def load(cls, path: Path | None, settings: Sequence[str] = (), overrides: dict[str, Any] | None = None) -> Recipe:
        """Return the recipe in a file, or the default one, with settings and overrides applied.

        Args:
            path: the TOML file; None for the embedded default.
            settings: `a.b=value` texts of the command line, applied last.
            overrides: `{"table.key": value}` from dedicated options, applied before the settings.

        Raises:
            RecipeError: with every fault of the file.
        """
        content = read_toml(path, RecipeError) if path else {"schema": SCHEMA_VERSION}
        if path and "schema" not in content:
            raise RecipeError(f"{path} does not say its schema", remedy=f"add the line: schema = {SCHEMA_VERSION}")
        if path:
            content = _absolute(content, path.parent)
        for key, value in (overrides or {}).items():
            put(content, key, value, f"the option for {key}")
        content = _absolute(apply_settings(content, settings), Path())
        return validate(cls, content, str(path or "the command line"), RecipeError)

    def to_toml(self) -> str:
        """Return the resolved recipe: every key, so that later defaults cannot change what it means."""
        return to_toml(self.model_dump(mode="json", by_alias=True))


def _absolute(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content with its relative paths taken from `folder`, so that the stored recipe can be replayed anywhere."""
    for key, words in PATHS.items():
        table_name, _, name = key.rpartition(".")
        table = content.get(table_name, {}) if table_name else content
        value = table.get(name) if isinstance(table, dict) else None
        if isinstance(value, str):
            table[name] = _from(folder, value, key, words)
        elif isinstance(value, list):
            table[name] = [_from(folder, one, key, words) if isinstance(one, str) else one for one in value]
    return content


def _from(folder: Path, value: str, key: str, words: tuple[str, ...]) -> str:
    """Return a value as it is, or as an absolute path if it is a relative one."""
    if not value or value in words or value.startswith(NAMED_SOURCES):
        return value
    if key in IS_PATH and not IS_PATH[key](value):
        return value
    try:
        path = Path(value).expanduser()
    except RuntimeError:  # `~name` of nobody: whoever reads the path will say that it is not there.
        return value
    return str(path if path.is_absolute() else (folder / path).resolve())
