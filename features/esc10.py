"""ESC-10 in both of its layouts: the original release and the ESC-50 repository.

K. J. Piczak: ESC: Dataset for Environmental Sound Classification. ACM Multimedia 2015.
"""

from __future__ import annotations

import re
from pathlib import Path

from features import esc50
from features.clip_table import AUDIO, ClipTable, Row, clip_path, whole
from features.clips import Dataset, DatasetError
from features.files import FoundClip, data_root, hashed_clips, visible_files, visible_folders

CLASSES = (
    "dog",
    "rain",
    "sea_waves",
    "crying_baby",
    "clock_tick",
    "sneezing",
    "helicopter",
    "chainsaw",
    "rooster",
    "crackling_fire",
)
"""In label order; the original release numbers them from 001."""

_EXPECTED = (
    "ESC-10 as 'NNN - Class/FOLD-CLIPID-TAKE.ogg' with the classes 001 to 010, "
    "or ESC-50 as 'audio/*.wav' with 'meta/esc50.csv'"
)
_TABLE = ClipTable(
    path=esc50.TABLE.path,
    columns=("filename", "fold", "category", "esc10", "src_file"),
    expected=_EXPECTED,
)
_FOLDER_NAME = re.compile(r"(\d{3}) - .+")
_CLIP_NAME = re.compile(r"(\d{1,9})-(\d+)-([A-Za-z])", re.ASCII)


def load_esc10(root: Path) -> Dataset:
    """ESC-10 with its five folds; the source of a clip is the Freesound clip id.

    Files directly in the root are ignored, hidden ones everywhere.

    Args:
        root: the folder that holds the ten class folders, or `audio` and `meta`.

    Raises:
        DatasetError: another layout, classes or files missing, names that do not parse.
    """
    root = data_root(root, _EXPECTED)
    from_table = (root / _TABLE.path).is_file()
    found = _TABLE.clips(_TABLE.root(root), _clip) if from_table else _from_folders(root)
    present = {clip.label for clip in found}
    missing = [name for label, name in enumerate(CLASSES) if label not in present]
    if missing:
        raise DatasetError(f"{root}: no clips of {', '.join(missing)}; expected {_EXPECTED}")
    return Dataset("esc10", root, CLASSES, hashed_clips(root, found))


def _from_folders(root: Path) -> list[FoundClip]:
    numbered = [
        (int(match[1]), folder)
        for folder in visible_folders(root)
        if (match := _FOLDER_NAME.fullmatch(folder.name))
    ]
    if not numbered:
        raise DatasetError(f"{root}: no class folders; expected {_EXPECTED}")
    faults = _folder_faults(root, numbered)
    found: list[FoundClip] = []
    for number, folder in numbered:
        for file in visible_files(folder):
            match = _CLIP_NAME.fullmatch(file.stem)
            if match is None:
                faults.append(f"{file}: the name is not FOLD-CLIPID-TAKE, e.g. 1-100032-A.ogg")
                continue
            path = file.relative_to(root).as_posix()
            found.append(FoundClip(path, number - 1, int(match[1]), match[2]))
    if faults:
        raise DatasetError(*faults)
    return found


def _folder_faults(root: Path, numbered: list[tuple[int, Path]]) -> list[str]:
    faults = []
    numbers = [number for number, _ in numbered]
    for number, folder in numbered:
        if not 1 <= number <= len(CLASSES):
            faults.append(f"{folder}: not a class of ESC-10; expected {_EXPECTED}")
        elif numbers.count(number) > 1:
            faults.append(f"{folder}: another folder has the number {number:03d} too")
    missing = [f"{n:03d} ({c})" for n, c in enumerate(CLASSES, 1) if n not in numbers]
    if missing:
        faults.append(f"{root}: no class folder {', '.join(missing)}; expected {_EXPECTED}")
    return faults


def _clip(root: Path, row: Row) -> FoundClip | None:
    """The clip of a line of ESC-50's table; None for one that is not ESC-10's."""
    name, fold, category, esc10, source = row.cells
    if esc10.lower() != "true":
        return None
    path = clip_path(root, AUDIO, name, row.place)
    if category not in CLASSES:
        raise DatasetError(
            f"{row.place}: category: found {category!r}; allowed {', '.join(CLASSES)}"
        )
    number = whole(fold, "fold", None, row.place)
    if not source:
        raise DatasetError(f"{row.place}: src_file: empty; allowed the clip id")
    return FoundClip(path, CLASSES.index(category), number, source, row.place)
