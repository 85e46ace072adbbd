"""Journal: `repair.csv`, which says what became of every file of a repair."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePath

from features.formulas import harmless, is_formula

JOURNAL = "repair.csv"


def readable(path: PurePath | Path) -> str:
    """A path as text with forward slashes; bytes that are not UTF-8 become escapes."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class RepairedFile:
    """One file of the source and what became of it; the columns of `repair.csv`.

    Attributes:
        source: path relative to the source folder.
        rate: Hz, the rate asked for; None for each file's own.
        action: `copied`, `converted`, `saved in part`, `left out`.
        target: path relative to the target folder; empty where nothing was written.
        format: by the content; empty where it is of no known format.
        sample_rate: Hz, of what was written; 0 where that is no audio.
        channels: likewise.
        seconds: likewise.
        remark: what was wrong or odd, or why the file was left out.
        source_sha256: of the source's content; empty where it was not read.
        bytes: size of what was written; 0 where nothing was.
    """

    source: str
    rate: int | None
    action: str = ""
    target: str = ""
    format: str = ""
    sample_rate: int = 0
    channels: int = 0
    seconds: float = 0.0
    remark: str = ""
    source_sha256: str = ""
    bytes: int = 0

    def cells(self) -> list[str]:
        """The row as text."""
        row = replace(
            self,
            source=_as_cell(self.source),
            target=_as_cell(self.target),
            remark=harmless(self.remark),
        )
        values = [getattr(row, field.name) for field in fields(row)]
        return ["" if value is None or value == 0 else str(value) for value in values]

    @classmethod
    def from_cells(cls, row: dict[str, str]) -> RepairedFile:
        """Read what `cells` wrote.

        Raises:
            KeyError, ValueError, TypeError: not a row of this version.
        """
        return cls(
            source=row["source"].removeprefix("./"),
            rate=int(row["rate"]) if row["rate"] else None,
            action=row["action"],
            target=row["target"].removeprefix("./"),
            format=row["format"],
            sample_rate=int(row["sample_rate"] or 0),
            channels=int(row["channels"] or 0),
            seconds=float(row["seconds"] or 0),
            remark=row["remark"],
            source_sha256=row["source_sha256"],
            bytes=int(row["bytes"] or 0),
        )


def _as_cell(path: str) -> str:
    """The path, spelt so that no spreadsheet runs it."""
    return f"./{path}" if is_formula(path) else path


COLUMNS = [field.name for field in fields(RepairedFile)]


class Journal:
    """`repair.csv` of one target folder."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target / JOURNAL

    def read(self) -> dict[str, RepairedFile]:
        """Rows of an earlier repair, the last of each source, by source.

        A line that was cut off in the middle or damaged is none.
        """
        found: dict[str, RepairedFile] = {}
        try:
            with self._path.open(encoding="utf-8", errors="replace", newline="") as stream:
                for row in csv.DictReader(stream):
                    entry = _entry(row)
                    if entry is not None:
                        found[entry.source] = entry
        except FileNotFoundError:
            return {}
        except csv.Error:
            # What stands behind the damage is done again.
            return found
        return found

    @contextmanager
    def appending(self) -> Iterator[Callable[[RepairedFile], None]]:
        """Rows written at once, each on a line of its own."""
        begun = self._path.exists()
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if not begun:
                writer.writerow(COLUMNS)
            else:
                # Ends a line that was cut off in the middle.
                stream.write("\n")

            def append(row: RepairedFile) -> None:
                writer.writerow(row.cells())
                stream.flush()

            yield append

    def close(self, rows: Sequence[RepairedFile]) -> None:
        """Write the rows anew, in order and each once."""
        temporary = self._target / f".{JOURNAL}.{os.getpid()}.tmp"
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(row.cells() for row in rows)
        temporary.replace(self._path)


def _entry(row: dict[str, str]) -> RepairedFile | None:
    if any(value is None for value in row.values()):
        return None
    try:
        return RepairedFile.from_cells(row)
    except (KeyError, ValueError, TypeError):
        return None
