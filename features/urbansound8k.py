"""UrbanSound8K as published: `audio/foldK/*.wav` and `metadata/UrbanSound8K.csv`.

J. Salamon, C. Jacoby, J. P. Bello: A Dataset and Taxonomy for Urban Sound Research.
ACM Multimedia 2014.
"""

from __future__ import annotations

import re
from pathlib import Path

from features.clip_table import AUDIO, ClipTable, Row, clip_path, refuse_unnamed, whole
from features.clips import Dataset, DatasetError
from features.files import FoundClip, hashed_clips

CLASSES = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)
"""In the order of the class ids."""

TABLE = ClipTable(
    path="metadata/UrbanSound8K.csv",
    columns=("slice_file_name", "fsID", "fold", "classID", "class"),
    expected=(
        "UrbanSound8K as 'audio/foldK/FSID-CLASSID-OCCURRENCE-SLICE.wav' "
        "with 'metadata/UrbanSound8K.csv'"
    ),
)
_CLIP_NAME = re.compile(r"(\d+)-(\d{1,9})-(\d+)-(\d+)\.[A-Za-z0-9]+", re.ASCII)


def load_urbansound8k(root: Path) -> Dataset:
    """UrbanSound8K with its ten folds; the source of a clip is the Freesound id (fsID).

    The clips of one recording are neighbours, so that folds of one's own would leak: the
    predefined ones are the only ones taken.

    Args:
        root: the folder that holds `audio` and `metadata`.

    Raises:
        DatasetError: another layout, classes or files missing, files not named in the table, a
            line that contradicts the name or the folder of its file.
    """
    root = TABLE.root(root)
    found = TABLE.clips(root, _clip)
    present = {clip.label for clip in found}
    missing = [name for label, name in enumerate(CLASSES) if label not in present]
    if missing:
        raise DatasetError(
            f"{root / TABLE.path}: no clips of {', '.join(missing)}; expected {TABLE.expected}"
        )
    refuse_unnamed(root, found, TABLE.path)
    return Dataset("urbansound8k", root, CLASSES, hashed_clips(root, found))


def _clip(root: Path, row: Row) -> FoundClip:
    name, source, fold, class_id, class_name = row.cells
    place = row.place
    match = _CLIP_NAME.fullmatch(name)
    if match is None:
        raise DatasetError(
            f"{place}: slice_file_name: found {name!r}; allowed FSID-CLASSID-OCCURRENCE-SLICE.wav"
        )
    number = whole(fold, "fold", range(1, 11), place)
    label = whole(class_id, "classID", range(len(CLASSES)), place)
    for column, cell, part in (("fsID", source, match[1]), ("classID", str(label), match[2])):
        if cell != part:
            raise DatasetError(f"{place}: {column}: found {cell!r}; allowed {part!r}, as in {name}")
    if class_name != CLASSES[label]:
        raise DatasetError(
            f"{place}: class: found {class_name!r}; allowed {CLASSES[label]!r} for classID {label}"
        )
    folder = f"{AUDIO}/fold{number}"
    if not (root / folder / name).is_file():
        for other in range(1, 11):
            if (root / AUDIO / f"fold{other}" / name).is_file():
                raise DatasetError(
                    f"{place}: fold: found '{number}'; allowed '{other}': "
                    f"{name} is in {AUDIO}/fold{other}"
                )
    return FoundClip(clip_path(root, folder, name, place), label, number, source, place)
