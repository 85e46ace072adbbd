"""Companions of clips: tables that name them, brought in line with a repair."""

from __future__ import annotations

import csv
import io
import posixpath
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field


@dataclass
class Names:
    """What became of the sounds that a table may name.

    Attributes:
        renamed: new path by old one, both below their roots; where both are equal too.
        lost: old paths of those that could not be saved.
    """

    renamed: Mapping[str, str]
    lost: Set[str]
    _by_name: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the paths by their last part, where it is the only one of its kind."""
        paths = [*self.renamed, *self.lost]
        counts = Counter(path.rpartition("/")[2] for path in paths)
        for path in paths:
            name = path.rpartition("/")[2]
            if counts[name] == 1:
                self._by_name[name] = path

    @property
    def changed(self) -> bool:
        """Whether any table may have to change."""
        return bool(self.lost) or any(old != new for old, new in self.renamed.items())

    def meant(self, cell: str, folder: str) -> str | None:
        """The old path that a cell of a table in `folder` names; None where it names none."""
        # A word without point and slash is a label sooner than a file without extension.
        if "." not in cell and "/" not in cell:
            return None
        for path in (posixpath.normpath(cell), posixpath.normpath(posixpath.join(folder, cell))):
            if path in self.renamed or path in self.lost:
                return path
        return self._by_name.get(cell)

    def now(self, cell: str, old: str, folder: str) -> str:
        """How the table is to name the file that it named with `cell`."""
        new = self.renamed[old]
        if new == old:
            return cell
        if posixpath.normpath(cell) == old:
            return new
        if "/" not in cell and cell == old.rpartition("/")[2]:
            return new.rpartition("/")[2]
        return posixpath.relpath(new, folder or ".")


def in_line(content: bytes, folder: str, names: Names) -> tuple[bytes, str]:
    """A table whose cells name the repaired files; rows of lost ones go.

    Args:
        content: the table, comma-separated.
        folder: where it stands, relative to the source; empty for the source itself.
        names: what became of the sounds.

    Returns:
        The new content, and what was changed in words; the old content and nothing where no
        cell names a file that was renamed or lost, or where it is no such table.
    """
    if not names.changed:
        return content, ""
    try:
        text = content.decode("utf-8")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return content, ""
    kept: list[list[str]] = []
    renamed = lost = 0
    for row in rows:
        old = {i: path for i, cell in enumerate(row) if (path := names.meant(cell, folder))}
        if names.lost & set(old.values()):
            lost += 1
            continue
        new = [names.now(c, old[i], folder) if i in old else c for i, c in enumerate(row)]
        renamed += new != row
        kept.append(new)
    if not renamed and not lost:
        return content, ""
    stream = io.StringIO(newline="")
    end = "\r\n" if "\r\n" in text else "\n"
    csv.writer(stream, lineterminator=end).writerows(kept)
    said = [f"rows that now name the repaired file: {renamed}"] if renamed else []
    said += [f"rows left out, as their file could not be saved: {lost}"] if lost else []
    return stream.getvalue().encode(), ", ".join(said)
