"""ESC-50 as published: `audio/FOLD-CLIPID-TAKE-TARGET.wav` and `meta/esc50.csv`.

K. J. Piczak: ESC: Dataset for Environmental Sound Classification. ACM Multimedia 2015.
"""

from __future__ import annotations

import re
from pathlib import Path

from features.clip_table import AUDIO, ClipTable, Row, clip_path, refuse_unnamed, whole
from features.clips import Dataset, DatasetError
from features.files import FoundClip, hashed_clips

CLASSES = 50

TABLE = ClipTable(
    path="meta/esc50.csv",
    columns=("filename", "fold", "target", "category", "src_file", "take"),
    expected="ESC-50 as 'audio/FOLD-CLIPID-TAKE-TARGET.wav' with 'meta/esc50.csv'",
)
_CLIP_NAME = re.compile(r"(\d{1,9})-(\d+)-([A-Za-z])-(\d{1,9})\.[A-Za-z0-9]+", re.ASCII)


def load_esc50(root: Path) -> Dataset:
    """ESC-50 with its five folds; the source of a clip is the Freesound clip id.

    Classes are the table's categories in the order of its targets. The release has four
    recordings with clips in two folds each, contrary to its README (clip ids 131943 and 134049 in
    folds 2 and 3, 209698 and 234879 in 4 and 5); that is found where folds are made, not here.

    Args:
        root: the folder that holds `audio` and `meta`.

    Raises:
        DatasetError: another layout, files missing or not named in the table, a line that
            contradicts the name of its file, targets that are not 0 to 49 with one category each.
    """
    root = TABLE.root(root)
    names: dict[int, tuple[str, str]] = {}

    def read(root: Path, row: Row) -> FoundClip:
        return _clip(root, row, names)

    found = TABLE.clips(root, read)
    _refuse_gaps(root, names)
    refuse_unnamed(root, found, TABLE.path)
    classes = tuple(names[target][0] for target in range(CLASSES))
    return Dataset("esc50", root, classes, hashed_clips(root, found))


def _clip(root: Path, row: Row, names: dict[int, tuple[str, str]]) -> FoundClip:
    """The clip of a line; `names` gathers each target's category and where it stood first."""
    name, fold, target, category, source, take = row.cells
    match = _CLIP_NAME.fullmatch(name)
    if match is None:
        raise DatasetError(
            f"{row.place}: filename: found {name!r}; allowed FOLD-CLIPID-TAKE-TARGET.wav"
        )
    number = whole(fold, "fold", range(1, 6), row.place)
    label = whole(target, "target", range(CLASSES), row.place)
    stated = (str(number), source, take, str(label))
    for column, cell, part in zip(
        ("fold", "src_file", "take", "target"), stated, match.groups(), strict=True
    ):
        if cell != part:
            raise DatasetError(
                f"{row.place}: {column}: found {cell!r}; allowed {part!r}, as in {name}"
            )
    if not category:
        raise DatasetError(f"{row.place}: category: empty; allowed the name of a class")
    first, place = names.setdefault(label, (category, row.place))
    if category != first:
        line = place.rpartition(":")[2]
        raise DatasetError(
            f"{row.place}: category: found {category!r}; allowed {first!r}, as in line {line} "
            f"for target {label}"
        )
    return FoundClip(clip_path(root, AUDIO, name, row.place), label, number, source, row.place)


def _refuse_gaps(root: Path, names: dict[int, tuple[str, str]]) -> None:
    table = root / TABLE.path
    absent = [str(target) for target in range(CLASSES) if target not in names]
    if absent:
        raise DatasetError(f"{table}: no clips of target {', '.join(absent)}; expected 0 to 49")
    categories = [category for category, _ in names.values()]
    twice = sorted({name for name in categories if categories.count(name) > 1})
    if twice:
        raise DatasetError(f"{table}: two targets are called {', '.join(twice)}")
