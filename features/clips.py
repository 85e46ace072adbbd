"""Clip and Dataset: what there is to classify, before any audio is decoded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


class DatasetError(ValueError):
    """The data cannot be used.

    Attributes:
        faults: one line each, naming the file or folder; the message is all of them.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)
        self.faults = tuple(" ".join(fault.splitlines()) for fault in faults)

    def __str__(self) -> str:
        return "\n".join(self.faults)


@dataclass(frozen=True, slots=True)
class Clip:
    """One audio file.

    Attributes:
        path: relative to the data root, with forward slashes; unique within a dataset.
        label: index into `Dataset.classes`.
        fold: the predefined fold, or None where the data bring no folds.
        source: the recording that the clip was cut from; clips of one recording share it.
        sha256: hash of the file's content, hexadecimal.
    """

    path: str
    label: int
    fold: int | None
    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """The clips of one collection and the names of their classes.

    Attributes:
        name: the kind of dataset, e.g. `esc10`.
        root: the absolute folder that `Clip.path` is relative to; None for data made in memory.
        classes: class names in label order.
        clips: ordered by path; the order is that of the feature array's rows.
    """

    name: str
    root: Path | None
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]

    def fingerprint(self) -> str:
        """Hash of every clip's path, label, fold, source and content, hexadecimal.

        The place of the root does not count, so a dataset may move.
        """
        rows = [(c.path, self.classes[c.label], c.fold, c.source, c.sha256) for c in self.clips]
        text = json.dumps([self.classes, rows], ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
