"""A published CSV of clips, in the folder that it was published with.

ESC-50 and UrbanSound8K both come as a table beside a folder `audio`; reading them differs in the
columns only.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from features.clips import DatasetError
from features.files import FoundClip, data_root, is_file, visible_files, visible_folders

AUDIO = "audio"
"""The folder of the clips, beside the table's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        place: its file and line, to go before its faults.
        cells: in the order of the columns asked for, without spaces around.
    """

    place: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClipTable:
    """Where a published table stands and which columns are needed.

    Attributes:
        path: of the CSV below the root, with forward slashes.
        columns: that are read; others may be there.
        expected: what the root should hold, for messages.
    """

    path: str
    columns: tuple[str, ...]
    expected: str

    def root(self, root: Path) -> Path:
        """The absolute root, known to hold the table and the clips.

        Raises:
            DatasetError: it does not; where a folder nearby does, that is said.
        """
        root = data_root(root, self.expected)
        if not (root / self.path).is_file():
            raise DatasetError(
                f"{root}: no {self.path} in it; expected {self.expected}{self._advice(root)}"
            )
        if not (root / AUDIO).is_dir():
            raise DatasetError(f"{root / AUDIO}: no such folder; expected {self.expected}")
        return root

    def clips(self, root: Path, read: Callable[[Path, Row], FoundClip | None]) -> list[FoundClip]:
        """What a function makes of each line, None leaving the line out.

        Args:
            root: as `root` gives it.
            read: raises DatasetError for a line that is wrong; all such are collected.

        Raises:
            DatasetError: the table cannot be read, lacks columns, or has wrong lines.
        """
        found: dict[str, FoundClip] = {}
        faults: list[str] = []
        for row in self._rows(root / self.path):
            try:
                clip = read(root, row)
            except DatasetError as error:
                faults.extend(error.faults)
                continue
            if clip is None:
                continue
            if clip.path in found:
                faults.append(f"{row.place}: {clip.path} is there twice")
            found[clip.path] = clip
        if faults:
            raise DatasetError(*faults)
        return list(found.values())

    def _rows(self, table: Path) -> list[Row]:
        try:
            with table.open(encoding="utf-8-sig", newline="") as lines:
                reader = csv.DictReader(lines)
                absent = [c for c in self.columns if c not in (reader.fieldnames or ())]
                if absent:
                    raise DatasetError(
                        f"{table}:1: no column {', '.join(absent)}; expected {self.expected}"
                    )
                return [
                    Row(
                        f"{table}:{reader.line_num}",
                        tuple((line[column] or "").strip() for column in self.columns),
                    )
                    for line in reader
                ]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"{table}: cannot be read: {error}") from None

    def _advice(self, root: Path) -> str:
        """The folder that was probably meant, in words."""
        inner = self.path.partition("/")[0]
        above = [root.parent] if root.name in (AUDIO, inner) else []
        if root.parent.name == AUDIO:
            above.append(root.parent.parent)
        try:
            below = visible_folders(root)
        except DatasetError:
            below = []
        for folder in (*above, *below):
            if (folder / self.path).is_file():
                return f" (did you mean {folder}?)"
        return ""


def clip_path(root: Path, folder: str, name: str, place: str) -> str:
    """The path of a clip that a line names, known to be there.

    Raises:
        DatasetError: the name leads to another folder, or to no file.
    """
    path = f"{folder}/{name}"
    if not name or "/" in name or "\0" in name or not is_file(root / path):
        raise DatasetError(f"{place}: {root / path}: no such file")
    return path


def whole(text: str, column: str, allowed: Iterable[int] | None, place: str) -> int:
    """A cell as a whole number.

    Args:
        text: the cell.
        column: its name, for the message.
        allowed: the numbers that may stand there; None for any from 0.
        place: file and line.

    Raises:
        DatasetError: something else stands there.
    """
    numbers = None if allowed is None else tuple(allowed)
    if re.fullmatch(r"[0-9]{1,9}", text) is None or (numbers and int(text) not in numbers):
        what = "an integer from 0" if numbers is None else f"{numbers[0]} to {numbers[-1]}"
        raise DatasetError(f"{place}: {column}: found {text!r}; allowed {what}")
    return int(text)


def refuse_unnamed(root: Path, found: Iterable[FoundClip], table: str) -> None:
    """Check that the table names every file below `audio`.

    Raises:
        DatasetError: the files that it does not name.
    """
    named = {clip.path for clip in found}
    files = (file.relative_to(root).as_posix() for file in visible_files(root / AUDIO))
    unnamed = [path for path in files if path not in named]
    if unnamed:
        raise DatasetError(
            *(f"{root / path}: not named in {table}; expected one line a file" for path in unnamed)
        )
