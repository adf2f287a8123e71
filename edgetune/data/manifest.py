"""A manifest: a table with one row per image, its path, what is right for it, and perhaps its split.

A CSV file is UTF-8 with the names of its columns in the first row. Paths are relative to the manifest. An empty cell means
that it is not known, which is allowed as long as the row says something. Every fault comes with the number of its row.
"""

from __future__ import annotations

import math
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgetune.artefacts import Split
from edgetune.data.listing import shown
from edgetune.data.source import SPLIT_WORDS, SPLITS, Item, Source
from edgetune.data.table import Cell, read_table
from edgetune.data.targets import Targets, disagreements, strata_of
from edgetune.data.tasks import read_tasks, tasks_or_default, without_column
from edgetune.device.heads import Head
from edgetune.errors import DataError, Fault
from edgetune.recipe import DataRecipe, TaskRecipe

__all__ = ["IMAGE_COLUMNS", "SPLIT_COLUMN", "Columns", "find_columns", "open_manifest"]

IMAGE_COLUMNS = ("image", "path", "file", "filename", "filepath")
SPLIT_COLUMN = "split"
FAULTS_OF_A_KIND = 100
"""So many rows with the same problem are named; of further ones only the number."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns say where an image is and which split it belongs to; None where there is none."""

    image: str | None
    split: str | None


def open_manifest(recipe: DataRecipe, tasks: Mapping[str, TaskRecipe]) -> Source:
    """List the images of a manifest, without opening any.

    Args:
        recipe: names the manifest and its columns.
        tasks: what is to be learnt; none is one class per image.

    Raises:
        DataError: it cannot be read, or columns are missing. Other faults are in the value.
    """
    path = Path(recipe.source).expanduser()
    table = read_table(path)
    columns, faults = find_columns(recipe, table.names)
    spelt, missing = tasks_or_default(tasks, table.names)
    faults += missing
    taken = {columns.image: "paths", columns.split: "splits"}
    faults += [
        Fault(where=f"tasks.{name}", problem=f"the column {shown(column)} says {taken[column]}, not what is to be learnt")
        for name, task in spelt.items()
        for column in task.columns
        if column in taken
    ]
    if faults or columns.image is None:
        remedy = "mend every line above; `edgetune init` on the manifest writes a recipe that fits its columns"
        raise DataError(f"{shown(path.name)} cannot be used: its columns", faults=faults, remedy=remedy)
    reading = read_tasks(spelt, table)
    targets = reading.targets() or [()] * len(table.rows)
    rows = _Rows(path.parent, reading.heads)
    splits = table.read(columns.split) if columns.split else [""] * len(table.rows)
    for row, cell, split, known in zip(table.rows, table.read(columns.image), splits, targets, strict=True):
        rows.add(row, cell, split, known)
    return rows.source(recipe.source, [*table.faults, *reading.faults])


def find_columns(recipe: DataRecipe, names: Sequence[str]) -> tuple[Columns, list[Fault]]:
    """Return the columns of paths and splits, and a fault for each that is asked for, or needed, and not there."""
    image: str | None = recipe.image_column
    split: str | None = recipe.split_column
    faults = []
    if image == "auto":
        image = next((name for name in IMAGE_COLUMNS if name in names), None)
        if image is None:
            got = f"the columns {', '.join(map(shown, names))}"
            problem = f"no column {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]} with the images' paths"
            faults.append(Fault(where="", problem=problem, got=got, hint="name it with data.image_column"))
    elif image not in names:
        faults.append(without_column("data.image_column", recipe.image_column, names))
    if split == "auto":
        split = SPLIT_COLUMN if SPLIT_COLUMN in names else None
    elif split not in names:
        faults.append(without_column("data.split_column", recipe.split_column, names))
    return Columns(image=image, split=split), faults


@dataclass(frozen=True, kw_only=True)
class _Row:
    number: int
    name: str
    split: Split | None
    targets: Targets
    path: str
    status: os.stat_result


@dataclass
class _Rows:
    """Gathers the rows of a manifest and their faults."""

    folder: Path
    heads: Sequence[Head]
    rows: dict[str, _Row] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    _inside: dict[str, bool] = field(default_factory=dict)
    _kinds: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, cell: Cell, split: Cell, targets: Targets) -> None:
        """Take up one row."""
        word = split.lower() if isinstance(split, str) else "a list"
        if word and word not in SPLIT_WORDS:
            self._fault(number, "an unknown split", got=shown(repr(split)), expected="train, val or test, or an empty cell")
        if targets and all(map(math.isnan, targets)):
            hint = "fill in a cell, or take the image to data.unlabelled"
            self._fault(number, "nothing is known of the image", got="empty cells", hint=hint)
        if not isinstance(cell, str) or not cell or "\0" in cell:
            self._fault(number, "no path of an image", got=shown(repr(cell)))
            return
        name, path, status = self._find(cell)
        if status is None:
            hint = "write / between folders" if "\\" in cell else ""
            self._fault(number, "no such file", got=shown(cell), expected=f"a path below {shown(str(self.folder))}", hint=hint)
        elif not stat.S_ISREG(status.st_mode):
            self._fault(number, "not a regular file", got=shown(cell))
        else:
            self._take(_Row(number=number, name=name, split=SPLIT_WORDS.get(word), targets=targets, path=path, status=status))

    def _find(self, cell: str) -> tuple[str, str, os.stat_result | None]:
        """Return an image's name (relative where it lies below the manifest's folder), its path, and its facts."""
        path = os.path.normpath(self.folder / cell)
        relative = os.path.relpath(path, self.folder) if os.path.isabs(cell) else os.path.normpath(cell)  # noqa: PTH117
        name = cell if os.path.isabs(cell) and relative.startswith("..") else relative  # noqa: PTH117
        try:
            status = os.stat(path)  # noqa: PTH116 - called for every row, and Path is slow
        except (OSError, ValueError):
            return name, path, None
        if not self._is_inside(path):
            self.outside.append(shown(name))
        return name, path, status

    def _is_inside(self, path: str) -> bool:
        """Return whether a path, its links followed, lies below the manifest's folder."""
        if os.path.islink(path):  # noqa: PTH114
            return Path(path).resolve().is_relative_to(self.folder.resolve())
        folder = os.path.dirname(path)  # noqa: PTH120
        if folder not in self._inside:
            self._inside[folder] = Path(folder).resolve().is_relative_to(self.folder.resolve())
        return self._inside[folder]

    def _take(self, row: _Row) -> None:
        first = self.rows.setdefault(row.name, row)
        if first is row:
            return
        contradictions = disagreements(self.heads, [first.targets, row.targets]) if row.targets else []
        if contradictions:
            got = ", ".join(map(shown, contradictions))
            problem = f"the same path as row {first.number} with other targets"
            self._fault(row.number, problem, got=got, expected="one row per image", kind="twice")
        elif first.split != row.split:
            got = f"{row.split or 'none'} and {first.split or 'none'}"
            self._fault(row.number, f"the same path as row {first.number} in another split", got=got, kind="split twice")
        elif str(first.targets) != str(row.targets):
            problem = f"the same path as row {first.number}, which knows other targets"
            self._fault(row.number, problem, got=shown(row.name), expected="one row per image", kind="knows")
        else:
            self.skipped[f"row {row.number}"] = f"the same as row {first.number}: {shown(row.name)}"

    def source(self, name: str, before: Sequence[Fault]) -> Source:
        """Return everything as a source; `before` are faults found on the way."""
        rows = sorted(self.rows.values(), key=lambda row: row.name)
        strata, order, loose = strata_of(self.heads, [row.targets for row in rows])
        items = tuple(
            Item(name=row.name, label=label, targets=row.targets, split=row.split, path=row.path, status=row.status)
            for row, label in zip(rows, strata, strict=True)
        )
        given, notes = self._given(rows)
        more = [
            Fault(where="", problem=f"{count - FAULTS_OF_A_KIND} more rows with the same problem: {kind}")
            for kind, count in self._kinds.items()
            if count > FAULTS_OF_A_KIND
        ]
        return Source(
            name=name,
            items=items,
            heads=tuple(self.heads),
            strata=order,
            loose=loose,
            cut_words="no row names the split {split}: {percent} % of the rows for train became it",
            given=given,
            skipped=self.skipped,
            outside=tuple(sorted(self.outside)),
            faults=tuple([*before, *self.faults, *more]),
            notes=notes,
            apart=True,
        )

    def _given(self, rows: Sequence[_Row]) -> tuple[tuple[Split, ...], tuple[str, ...]]:
        """Return the splits that the rows name, and what is to be said of rows that name none.

        What no row names is cut from train; a row without a word belongs to train.
        """
        named = Counter(row.split for row in rows)
        silent = named.pop(None, 0)
        if not set(named) - {"train"}:
            return (), ()
        if not silent and "train" not in named:
            self.faults.append(Fault(where="", problem="no row is for training", got=f"splits {', '.join(map(str, named))}"))
        given = tuple(split for split in SPLITS if split in named or split == "train")
        whole = silent and len(given) == len(SPLITS)
        return given, ((f"{silent} rows name no split, though others name all three: taken for train",) if whole else ())

    def _fault(
        self, number: int, problem: str, *, got: str = "", expected: str = "", hint: str = "", kind: str | None = None
    ) -> None:
        self._kinds[kind or problem] += 1
        if self._kinds[kind or problem] <= FAULTS_OF_A_KIND:
            self.faults.append(Fault(where=f"row {number}", problem=problem, got=got, expected=expected, hint=hint))
