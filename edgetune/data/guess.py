"""What is probably to be learnt from a manifest, by the names and contents of its columns; a person decides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.data.manifest import find_columns
from edgetune.data.table import Cell, Table
from edgetune.data.tasks import LABEL_COLUMNS, parse_flag, parse_number
from edgetune.recipe import DataRecipe, TaskRecipe

__all__ = ["Guess", "guess_tasks"]

SEVERAL = ("labels", "tags", "classes", "categories", "keywords", "attributes")
"""Names of columns that hold several labels."""
SEPARATORS = ("|", ";", ",", " ")
NUMBERS = ("id", "index", "idx", "key", "uuid", "name", "row")
"""Names of columns that count or name images, and say nothing of what is on them."""
FEW = 0.2
"""Text with so few different values, as a part of the rows, is taken for classes."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What is probably to be learnt.

    Attributes:
        tasks: name → task.
        notes: why, one sentence for each column that was looked at.
    """

    tasks: dict[str, TaskRecipe]
    notes: tuple[str, ...]


def guess_tasks(table: Table, recipe: DataRecipe) -> Guess:
    """Return the tasks that fit a manifest's columns: classes, labels with separators or as 0 and 1, and numbers."""
    columns, _ = find_columns(recipe, table.names)
    tasks: dict[str, TaskRecipe] = {}
    flags: list[str] = []
    notes: list[str] = []
    for name in table.names:
        if name == columns.image:
            notes.append(f"{name}: the images' paths")
        elif name == columns.split:
            notes.append(f"{name}: the splits")
        elif _is_flag(name, cells := table.read(name)):
            flags.append(name)
        else:
            task, why = _task(name, cells)
            notes.append(f"{name}: {why}")
            if task:
                tasks[_key(name, tasks)] = task
    if len(flags) > 1:
        tasks[_key("labels", tasks)] = TaskRecipe(kind="multi-label", columns=tuple(flags))
        notes.append(f"{', '.join(flags)}: 0 or 1, taken for a label each")
    elif flags:
        tasks[_key(flags[0], tasks)] = TaskRecipe(columns=(flags[0],))
        notes.append(f"{flags[0]}: two classes, 0 and 1")
    return Guess(tasks=tasks, notes=tuple(notes))


def _is_flag(name: str, cells: Sequence[Cell]) -> bool:
    return name not in LABEL_COLUMNS and {parse_flag(cell) for cell in cells if cell != ""} == {0.0, 1.0}


def _task(name: str, cells: Sequence[Cell]) -> tuple[TaskRecipe | None, str]:
    """Return the task that a column is for, or None, and why."""
    texts = [cell for cell in cells if isinstance(cell, str) and cell]
    lists = any(isinstance(cell, tuple) for cell in cells)
    separator = next((mark for mark in SEPARATORS if any(mark in text for text in texts)), "")
    several = name.lower() in SEVERAL or separator == "|"
    if lists or (several and separator):
        written = f"with {separator!r} between" if separator else "in lists"
        return TaskRecipe(kind="multi-label", columns=(name,), separator=separator or "|"), f"several labels, {written}"
    different = len(set(texts))
    if name in LABEL_COLUMNS:
        return TaskRecipe(columns=(name,)), f"{different} classes"
    if different < 2:
        return None, "left out: all its cells are alike"
    if name.lower() in NUMBERS or name.lower().endswith("_id"):
        return None, "left out: by its name it counts or names images"
    if all(parse_number(text) is not None for text in texts):
        return TaskRecipe(kind="regression", columns=(name,)), "a number"
    if different <= max(2, FEW * len(texts)):
        return TaskRecipe(columns=(name,)), f"{different} classes"
    return None, f"left out: text with {different} different values"


def _key(name: str, taken: dict[str, TaskRecipe]) -> str:
    """Return a name for a task that needs no quotation marks in TOML."""
    key = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "task"
    while key in taken:
        key += "-2"
    return key
