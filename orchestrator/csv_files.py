"""CSV files: how a value stands in a cell, and a folder of tables that is written as a whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from orchestrator import atomic
from orchestrator.output_folder import make_folder, remove_stale

Cell = str | int | float | bool | list[Any] | dict[str, Any] | None

LEAKAGE = "leakage_allowed"
"""The last column of every table where `data.allow_leakage` let a leak pass."""


def text(value: Cell) -> str:
    """A value as it stands in a cell, before quoting.

    Floats are the shortest text that reads back the same, a missing value is empty, truth is
    `true` or `false`, lists and mappings are compact JSON.

    >>> [text(v) for v in (0.001, 4, None, True, [1, 2.5], "sgd")]
    ['0.001', '4', '', 'true', '[1,2.5]', 'sgd']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value if isinstance(value, str) else repr(value)


def percent(fraction: float | None) -> float | None:
    """A fraction in percent: its shortest decimal text with the point moved, without rounding.

    >>> percent(0.5125), 0.07 * 100, percent(0.07)
    (51.25, 7.000000000000001, 7.0)
    """
    return None if fraction is None else float(Decimal(repr(fraction)).scaleb(2))


class CsvWriter:
    r"""Rows of cells as CSV: commas, `\n`, quotes only where RFC 4180 asks for them."""

    # What the csv module writes as `text` does, and without a call for each of millions of cells.
    _AS_THEY_ARE = frozenset({str, int, float, type(None)})

    def __init__(self, stream: TextIO, last: str | None = None) -> None:
        r"""Write to `stream`, every row ending with the cell `last` unless it is None."""
        self._stream = stream
        self._last = () if last is None else (last,)
        # The writer quotes what its own line end holds; with \r\n that is both, as it must be.
        self._writer = csv.writer(self, lineterminator="\r\n")

    def row(self, cells: Iterable[Cell]) -> None:
        """Write one row."""
        as_they_are = self._AS_THEY_ARE
        row = [cell if type(cell) in as_they_are else text(cell) for cell in cells]
        self._writer.writerow([*row, *self._last])

    def write(self, line: str) -> None:
        """Take a line from the csv module."""
        self._stream.write(line.removesuffix("\r\n") + "\n")


@dataclass
class TableFolder:
    """The folder of tables, and which of them have been written this time.

    Attributes:
        path: the folder.
        leakage_allowed: every table gets a last column that says so.
        written: in order.
    """

    path: Path
    leakage_allowed: bool = False
    written: list[Path] = field(default_factory=list)

    def make(self) -> None:
        """Make the folder.

        Raises:
            RunDirectoryError: it cannot be made.
        """
        make_folder(self.path)

    @contextmanager
    def open(
        self, name: str, header: Sequence[str], *, last_column: bool = True
    ) -> Iterator[CsvWriter]:
        """A table to write row by row; it takes the old one's place when the block ends well.

        Args:
            name: of the file.
            header: names of the columns.
            last_column: say in a column of its own that leakage is allowed, where it is.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        said = self.leakage_allowed and last_column
        with atomic.replacing(self.path / name, durable=False) as stream:
            CsvWriter(stream, LEAKAGE if said else None).row(header)
            yield CsvWriter(stream, text(True) if said else None)
        self.written.append(self.path / name)

    def write(self, name: str, header: Sequence[str], rows: Iterable[Iterable[Cell]]) -> None:
        """Write a whole table that fits in memory, unless it stands there already.

        Taking the place of a file can make the system wait for the disk, which a plan with
        thousands of run summaries would notice at every renewal.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        stream = io.StringIO(newline="")
        CsvWriter(stream, LEAKAGE if self.leakage_allowed else None).row(header)
        table = CsvWriter(stream, text(True) if self.leakage_allowed else None)
        for row in rows:
            table.row(row)
        atomic.update_text(self.path / name, stream.getvalue())
        self.written.append(self.path / name)

    def remove_stale(self, *patterns: str) -> None:
        """Remove tables of these patterns that an earlier state left and this one has not.

        Raises:
            RunDirectoryError: one cannot be removed.
        """
        remove_stale(self.path, patterns, {path.name for path in self.written})
