"""A manifest: a CSV that names clips, their labels and, if it likes, their folds and sources."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.clips import Dataset, DatasetError
from features.files import FoundClip, data_root, hashed_clips, is_file

_REQUIRED = ("path", "label")
_COLUMNS = (*_REQUIRED, "fold", "source")


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    path: str
    label: str
    fold: int | None
    source: str


def load_manifest(manifest: Path, root: Path) -> Dataset:
    """The clips that a CSV with the columns `path,label` and optionally `fold,source` lists.

    Paths are relative to the root, with forward slashes. Folds are integers from 0, given for
    every clip or for none. A clip with an empty source is its own. Classes are the sorted labels.

    Args:
        manifest: the CSV, UTF-8.
        root: the folder that its paths are relative to.

    Raises:
        DatasetError: every fault with the manifest's file and line.
    """
    lines = _lines(manifest)
    root = data_root(root, "the folder that the manifest's paths are relative to")
    rows: list[_Row] = []
    faults: list[str] = []
    for number, cells in _records(manifest, lines, faults):
        place = f"{manifest}:{number}"
        problems = _problems(root, cells)
        if problems:
            faults.extend(f"{place}: {problem}" for problem in problems)
        else:
            rows.append(_row(place, cells))
    faults.extend(_faults_between(rows))
    classes = tuple(sorted({row.label for row in rows}))
    if not faults and len(classes) < 2:
        what = "one label" if rows else "no clips"
        faults.append(f"{manifest}: {what}; expected clips of two or more labels")
    if faults:
        raise DatasetError(*faults)
    found = [FoundClip(r.path, classes.index(r.label), r.fold, r.source, r.place) for r in rows]
    return Dataset("manifest", root, classes, hashed_clips(root, found))


def _lines(manifest: Path) -> list[str]:
    try:
        content = manifest.read_bytes()
    except OSError as error:
        raise DatasetError(f"{manifest}: cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{manifest}:{line}: not valid UTF-8") from None
    # Not str.splitlines, which also parts lines at characters that CSV allows within a cell.
    return list(io.StringIO(text, newline=""))


def _records(
    manifest: Path, lines: list[str], faults: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Each record's first line number and its cells by column; faults of form are collected."""
    reader = csv.reader(lines, strict=True)
    columns: list[str] | None = None
    number = 1
    try:
        for record in reader:
            if columns is None:
                columns = _columns(f"{manifest}:{number}", record)
            elif record and len(record) != len(columns):
                faults.append(
                    f"{manifest}:{number}: found {len(record)} cells; allowed {len(columns)} "
                    f"({','.join(columns)})"
                )
            elif record:
                yield number, dict(zip(columns, record, strict=True))
            number = reader.line_num + 1
    except csv.Error as error:
        faults.append(f"{manifest}:{number}: not CSV: {error}")
    if columns is None:
        raise DatasetError(f"{manifest}:1: empty; expected the columns {','.join(_COLUMNS)}")


def _columns(place: str, header: list[str]) -> list[str]:
    columns = [name.strip() for name in header]
    allowed = f"{', '.join(_REQUIRED)} and optionally fold, source"
    faults = [
        f"{place}: found the column {name!r}; allowed {allowed}"
        for name in columns
        if name not in _COLUMNS
    ]
    # An unknown column is most likely the missing one misspelt: one fault, not two.
    if not faults:
        faults = [f"{place}: no column {name!r}" for name in _REQUIRED if name not in columns]
    faults += [
        f"{place}: the column {name!r} is there twice"
        for name in _COLUMNS
        if columns.count(name) > 1
    ]
    if faults:
        raise DatasetError(*faults)
    return columns


def _problems(root: Path, cells: dict[str, str]) -> list[str]:
    problems = []
    path = cells["path"]
    inside = posixpath.normpath(path)
    if not path or "\0" in path:
        problems.append(f"path: found {path!r}; allowed a file below {root}")
    elif path.startswith("/") or inside == ".." or inside.startswith("../"):
        problems.append(f"path: found {path!r}; allowed a relative path that stays below {root}")
    elif not is_file(root / inside):
        advice = "; folders are parted by forward slashes" if "\\" in path else ""
        problems.append(f"path: found {path!r}; no such file below {root}{advice}")
    if not cells["label"].strip():
        problems.append("label: empty; allowed the name of a class")
    fold = cells.get("fold", "").strip()
    if fold and re.fullmatch(r"[0-9]{1,9}", fold) is None:
        problems.append(f"fold: found {fold!r}; allowed an integer from 0")
    return problems


def _row(place: str, cells: dict[str, str]) -> _Row:
    path = posixpath.normpath(cells["path"])
    fold = cells.get("fold", "").strip()
    source = cells.get("source", "").strip()
    return _Row(place, path, cells["label"].strip(), int(fold) if fold else None, source or path)


def _faults_between(rows: list[_Row]) -> list[str]:
    faults = []
    first: dict[str, _Row] = {}
    for row in rows:
        if row.path in first:
            line = first[row.path].place.rpartition(":")[2]
            faults.append(f"{row.place}: path: found {row.path!r} again; line {line} has it too")
        first.setdefault(row.path, row)
    if any(row.fold is not None for row in rows):
        faults += [
            f"{row.place}: fold: empty; allowed an integer from 0, as in other lines"
            for row in rows
            if row.fold is None
        ]
    return faults
