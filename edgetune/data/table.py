"""The cells of a manifest, CSV or Parquet, as text."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune.data.listing import shown
from edgetune.errors import DataError, Fault

__all__ = ["Cell", "Table", "read_table"]

Cell = str | tuple[str, ...]
"""A cell's text without white space around it; empty where there is nothing. Of Parquet, a list may stand in a cell."""
EMPTY_LIST = ("",)
"""A list that is there but has nothing in it, unlike a cell without a list."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A manifest's content.

    Attributes:
        names: of the columns, without those that have no name.
        rows: the number of each row, as a spreadsheet counts them: a CSV's header is row 1.
        read: returns the cells of a column, in the order of the rows.
        faults: rows that cannot be read.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    read: Callable[[str], Sequence[Cell]]
    faults: tuple[Fault, ...] = ()


def read_table(path: Path) -> Table:
    """Return the content of a .csv, .tsv or .parquet file.

    Raises:
        DataError: it cannot be read, or its columns have no names of their own.
    """
    try:
        table = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
    except FileNotFoundError as fault:
        raise DataError(f"there is no file {shown(str(path))}", remedy="check data.source") from fault
    except OSError as fault:
        raise DataError(f"{shown(str(path))} cannot be read: {fault.strerror or fault}", remedy="check the file") from fault
    twice = sorted(name for name, count in Counter(table.names).items() if count > 1)
    if twice:
        faults = [
            Fault(where=shown(name), problem="the name of several columns", expected="a name of its own") for name in twice
        ]
        raise DataError(f"the columns of {shown(path.name)} cannot be told apart", faults=faults, remedy="rename them")
    if not table.rows:
        raise DataError(f"{shown(path.name)} has no rows", remedy="write one row per image below the names of the columns")
    return table


def _text(path: Path) -> Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        lines = list(
            csv.reader(
                io.StringIO(path.read_bytes().decode().removeprefix("\ufeff"), newline=""), delimiter=delimiter, strict=True
            )
        )
    except UnicodeDecodeError as fault:
        remedy = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
        raise DataError(f"{shown(path.name)} is not UTF-8 text (byte {fault.start})", remedy=remedy) from fault
    except csv.Error as fault:
        raise DataError(f"{shown(path.name)} is not a table of cells: {fault}", remedy="check its quotation marks") from fault
    header = [cell.strip() for cell in lines[0]] if lines else []
    if len(header) == 1 and ";" in header[0]:
        raise DataError(
            f"the cells of {shown(path.name)} are separated by semicolons", remedy="save it with commas, or with tabs as .tsv"
        )
    places = {name: place for place, name in enumerate(header) if name}
    numbered = [(number, line) for number, line in enumerate(lines[1:], start=2) if any(cell.strip() for cell in line)]
    faults = [
        Fault(
            where=f"row {number}", problem="another number of cells than names", got=str(len(line)), expected=str(len(header))
        )
        for number, line in numbered
        if len(line) != len(header)
    ]
    whole = [(number, line) for number, line in numbered if len(line) == len(header)]
    return Table(
        names=tuple(name for name in header if name),
        rows=tuple(number for number, _ in whole),
        read=lambda name: [line[places[name]].strip() for _, line in whole],
        faults=tuple(faults),
    )


def _parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as fault:
        raise DataError(
            f"{shown(path.name)}: Parquet files are read by pyarrow, which is not installed",
            remedy="pip install 'edgetune[parquet]', or save the manifest as .csv",
        ) from fault
    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as fault:
        raise DataError(f"{shown(path.name)} is not a Parquet file: {fault}", remedy="write it again") from fault

    def read(name: str) -> Sequence[Cell]:
        return [_cell(value) for value in file.read(columns=[name]).column(name).to_pylist()]

    names = tuple(name for name in file.schema_arrow.names if name and not name.startswith("__index_level_"))
    return Table(names=names, rows=tuple(range(1, file.metadata.num_rows + 1)), read=read)


def _cell(value: object) -> Cell:
    """Return a Parquet value as the text that a CSV file would hold."""
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        return tuple(text for item in value if (text := str(_cell(item)))) or EMPTY_LIST
    return str(value).strip()
