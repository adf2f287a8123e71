"""From the columns of a manifest to heads and targets: what each task reads, and everything that is wrong with it."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgetune.data.listing import shown
from edgetune.data.source import case_clashes
from edgetune.data.table import Cell, Table
from edgetune.data.targets import Targets
from edgetune.device.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Head
from edgetune.errors import Fault
from edgetune.recipe import TaskRecipe

__all__ = ["LABEL_COLUMNS", "Reading", "parse_flag", "parse_number", "read_tasks", "tasks_or_default", "without_column"]

LABEL_COLUMNS = ("label", "class", "category", "target")
FLAGS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
LARGEST = 3.4e38
"""Beyond it, float32 is infinite."""
NAN = math.nan


@dataclass(kw_only=True)
class Reading:
    """What the tasks found in a table.

    Attributes:
        heads: one per task that could be read.
        columns: the columns of targets so far, each with one number per row of the table.
        faults: everything that is wrong.
    """

    heads: list[Head] = field(default_factory=list)
    columns: list[Sequence[float]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def targets(self) -> list[Targets]:
        """Return what is right for each row."""
        return list(zip(*self.columns, strict=True))


def tasks_or_default(tasks: Mapping[str, TaskRecipe], names: Sequence[str]) -> tuple[dict[str, TaskRecipe], list[Fault]]:
    """Return the tasks with their columns spelt out, and a fault for each column that is not there.

    Without tasks it is one class per image, from the first of the columns label, class, category and target.
    """
    if not tasks:
        column = next((name for name in LABEL_COLUMNS if name in names), None)
        if column:
            return {"label": TaskRecipe(columns=(column,))}, []
        problem = f"no column {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}, and no [tasks]"
        hint = "name the tasks and their columns in a recipe; `edgetune init` guesses them"
        return {}, [Fault(where="", problem=problem, got=f"the columns {', '.join(map(shown, names))}", hint=hint)]
    spelt = {name: task if task.columns else task.model_copy(update={"columns": (name,)}) for name, task in tasks.items()}
    faults = []
    for name, task in spelt.items():
        faults += [without_column(f"tasks.{name}", column, names) for column in task.columns if column not in names]
        faults += [
            Fault(where=f"tasks.{name}", problem=f"the column {shown(column)} stands there {count} times", expected="once")
            for column, count in Counter(task.columns).items()
            if count > 1
        ]
        if task.kind == SINGLE_LABEL and len(task.columns) > 1:
            got = ", ".join(map(shown, task.columns))
            faults.append(
                Fault(where=f"tasks.{name}", problem="one class comes from one column", got=got, hint="or is it multi-label?")
            )
    return spelt, faults


def without_column(where: str, column: str, names: Sequence[str]) -> Fault:
    """Return the fault of a column that is not there."""
    near = difflib.get_close_matches(column, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    expected = f"one of {', '.join(map(shown, names))}"
    return Fault(where=where, problem=f"there is no column {shown(column)}", expected=expected, hint=hint)


def read_tasks(tasks: Mapping[str, TaskRecipe], table: Table) -> Reading:
    """Return the heads and targets of all tasks, whose columns are all there."""
    reading = Reading()
    for name, task in tasks.items():
        cells = {column: table.read(column) for column in task.columns}
        if task.kind == SINGLE_LABEL:
            _read_classes(reading, name, cells[task.columns[0]], table)
        elif task.kind == REGRESSION:
            _read_columns(reading, name, REGRESSION, cells, table)
        elif len(task.columns) > 1:
            _read_columns(reading, name, MULTI_LABEL, cells, table)
        else:
            _read_labels(reading, name, task, cells[task.columns[0]], table)
    return reading


def _read_classes(reading: Reading, name: str, cells: Sequence[Cell], table: Table) -> None:
    where = f"tasks.{name}"
    labels = []
    for row, cell in zip(table.rows, cells, strict=True):
        labels.append(_label(cell) if isinstance(cell, str) else "")
        if not isinstance(cell, str):
            hint = "set kind to multi-label, or keep one"
            reading.faults.append(Fault(where=f"row {row}", problem=f"{where}: several labels where there is one", hint=hint))
    classes = _in_order(set(labels) - {""})
    reading.faults += case_clashes(classes)
    if len(classes) < 2:
        problem = "the only class" if classes else "no class"
        expected = "at least two classes"
        reading.faults.append(Fault(where=where, problem=problem, got=", ".join(map(shown, classes)), expected=expected))
    elif len(classes) > 20 and 2 * len(classes) > len(labels):
        got = f"{len(classes)} classes in {len(labels)} rows"
        hint = "is it a number to predict? then set kind to regression; or is it another column?"
        reading.faults.append(Fault(where=where, problem="nearly every image has a class of its own", got=got, hint=hint))
    if classes:
        number = {label: float(index) for index, label in enumerate(classes)}
        reading.heads.append(Head(name=name, kind=SINGLE_LABEL, columns=classes))
        reading.columns.append([number.get(label, NAN) for label in labels])


def _read_columns(reading: Reading, name: str, kind: str, cells: Mapping[str, Sequence[Cell]], table: Table) -> None:
    """Read one column per label or value."""
    parse, expected = (parse_number, "a number such as 3.5") if kind == REGRESSION else (parse_flag, "0 or 1")
    where = f"tasks.{name}"
    for column, texts in cells.items():
        numbers = []
        for row, text in zip(table.rows, texts, strict=True):
            number = parse(text)
            numbers.append(NAN if number is None else number)
            if number is None:
                got = shown(repr(text))
                hint = "an empty cell means that it is not known"
                problem = f"{where}: a wrong value of {shown(column)}"
                reading.faults.append(Fault(where=f"row {row}", problem=problem, got=got, expected=expected, hint=hint))
        values = {number for number in numbers if not math.isnan(number)}
        if len(values) < 2 and not any(number is None for number in map(parse, texts)):
            got = f"{next(iter(values)):g} wherever it is known" if values else "no value"
            problem = f"nothing can be learnt from the column {shown(column)}"
            reading.faults.append(Fault(where=where, problem=problem, got=got, expected="two values at least"))
        reading.columns.append(numbers)
    reading.heads.append(Head(name=name, kind=kind, columns=tuple(cells)))


def _read_labels(reading: Reading, name: str, task: TaskRecipe, cells: Sequence[Cell], table: Table) -> None:
    """Read names of labels that stand in one cell; a cell with nothing but separators says that there is none."""
    where = f"tasks.{name}"
    rows = [None if cell == "" else _split(cell, task.separator) for cell in cells]
    labels = _in_order({label for row in rows if row for label in row})
    if labels and set(labels) <= set(FLAGS):
        hint = "name each 0 or 1 column in columns; a single yes or no is single-label"
        reading.faults.append(Fault(where=where, problem="no names of labels", got=" and ".join(labels), hint=hint))
    if not labels:
        reading.faults.append(
            Fault(where=where, problem="no label in any row", expected=f"names with {task.separator!r} between")
        )
        return
    reading.faults += case_clashes(labels)
    always = [label for label in labels if all(label in row for row in rows if row is not None)]
    for label in always:
        got = f"{shown(label)} wherever it is known"
        reading.faults.append(Fault(where=where, problem="nothing can be learnt from a label that every image has", got=got))
    reading.heads.append(Head(name=name, kind=MULTI_LABEL, columns=labels))
    found = [None if row is None else frozenset(row) for row in rows]
    reading.columns += [[NAN if row is None else float(label in row) for row in found] for label in labels]


def _split(cell: Cell, separator: str) -> list[str]:
    parts = cell.split(separator) if isinstance(cell, str) else cell
    return [label for part in parts if (label := _label(part.strip()))]


def _label(text: str) -> str:
    # As folders: a manifest written on a Mac names the same classes.
    return unicodedata.normalize("NFC", text)


def _in_order(labels: set[str]) -> tuple[str, ...]:
    """Return labels in their order: as numbers where all are whole numbers, else as text."""
    numbers = all(label.isascii() and label.isdigit() and len(label) < 19 and str(int(label)) == label for label in labels)
    return tuple(sorted(labels, key=int if numbers else None))


def parse_number(cell: Cell) -> float | None:
    """Return the number in a cell: NaN where it is empty, None where it is none that float32 can hold."""
    if cell == "":
        return NAN
    try:
        number = float(cell) if isinstance(cell, str) and "_" not in cell else NAN
    except ValueError:
        return None
    return number if abs(number) < LARGEST else None


def parse_flag(cell: Cell) -> float | None:
    """Return the 0 or 1 in a cell: NaN where it is empty, None where it is something else."""
    return NAN if cell == "" else FLAGS.get(cell.lower()) if isinstance(cell, str) else None
