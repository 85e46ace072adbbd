"""Files on disk that become clips: found in a fixed order, checked and hashed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from features.clips import Clip, DatasetError

_THREADS = 4
"""Enough for a disk that answers slowly; more of them wait for the interpreter's lock."""

_TOGETHER = 32
"""Files a task, each of which takes about as long to hand out as to hash a small file."""

_BLOCK = 1 << 20
"""Bytes read at a time."""


@dataclass(frozen=True, slots=True)
class FoundClip:
    """A clip before its content has been hashed.

    Attributes:
        path: relative to the data root, with forward slashes.
        label: index into the dataset's classes.
        fold: the predefined fold, or None.
        source: the recording that the clip was cut from.
        place: file and line that name the clip, to go before its faults; empty where the
            folder itself does.
    """

    path: str
    label: int
    fold: int | None
    source: str
    place: str = ""


def data_root(root: Path, expected: str) -> Path:
    """The root as an absolute path, its symbolic links kept.

    Args:
        root: a folder.
        expected: what the folder should hold, for the message.

    Raises:
        DatasetError: there is no such folder.
    """
    root = root.absolute()
    try:
        if root.is_dir():
            return root
        fault = "not a folder" if root.exists() else "no such folder"
    except OSError as error:
        fault = f"cannot be reached: {error.strerror}"
    raise DatasetError(f"{root}: {fault}; expected {expected}")


def is_file(path: Path) -> bool:
    """Whether there is such a file, a link to one included; a name too long for one is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def visible_folders(folder: Path) -> list[Path]:
    """The direct subfolders that are not hidden, sorted by name; links are followed."""
    return [entry for entry in _entries(folder) if entry.is_dir()]


def visible_files(folder: Path) -> Iterator[Path]:
    """Every file below the folder that is not hidden, nor in a hidden folder, in a fixed order.

    Links are followed, except those that lead back to a folder on their own way.
    """
    own = Path(os.path.realpath(folder))
    yield from _walk(folder, (own, *own.parents))


def hashed_clips(root: Path, found: Iterable[FoundClip]) -> tuple[Clip, ...]:
    """The clips with their content hashes, sorted by path.

    Raises:
        DatasetError: files that cannot be read, every one of them.
    """
    ordered = sorted(found, key=lambda clip: clip.path)

    def hashed(start: int) -> list[str | DatasetError]:
        return [_content_hash(root / clip.path) for clip in ordered[start : start + _TOGETHER]]

    # Reading and hashing both release the interpreter's lock.
    with ThreadPoolExecutor(_THREADS) as pool:
        starts = range(0, len(ordered), _TOGETHER)
        hashes = [one for some in pool.map(hashed, starts) for one in some]
    faults = [
        f"{clip.place}: {result}" if clip.place else str(result)
        for clip, result in zip(ordered, hashes, strict=True)
        if isinstance(result, DatasetError)
    ]
    if faults:
        raise DatasetError(*faults)
    return tuple(
        Clip(clip.path, clip.label, clip.fold, clip.source, str(content))
        for clip, content in zip(ordered, hashes, strict=True)
    )


def _content_hash(path: Path) -> str | DatasetError:
    try:
        str(path).encode()
        # A pipe would block for ever when opened.
        if not stat.S_ISREG(path.stat().st_mode):
            return DatasetError(f"{path}: not a regular file")
        digest = hashlib.sha256()
        # In threads a fifth faster than `hashlib.file_digest`, which reads more often.
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()
    except UnicodeEncodeError:
        return DatasetError(f"{str(path)!a}: the name is not valid UTF-8")
    except OSError as error:
        return DatasetError(f"{path}: cannot be read: {error.strerror}")


def _walk(folder: Path, way: tuple[Path, ...]) -> Iterator[Path]:
    for entry in _entries(folder):
        if not entry.is_dir():
            yield entry
            continue
        real = Path(os.path.realpath(entry))
        if real not in way:
            yield from _walk(entry, (*way, real))


def _entries(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read: {error.strerror}") from None
    return [entry for entry in entries if not entry.name.startswith(".")]
