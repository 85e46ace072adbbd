"""A folder of clips: one subfolder a class."""

from __future__ import annotations

import re
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from features.clips import Dataset, DatasetError
from features.files import FoundClip, data_root, hashed_clips, visible_files, visible_folders

_PATTERN_SECONDS = 10.0
"""For `data.source_pattern` on all paths: nested repetitions may take longer than a life."""

_EXPECTED = "a subfolder with clips for each of two or more classes"


def load_folder(root: Path, source_pattern: str | None = None) -> Dataset:
    """The clips below each class folder, without predefined folds.

    Classes are the sorted direct subfolders; every file below one is a clip, whatever its
    extension. Files directly in the root are ignored, hidden files and folders everywhere.

    Args:
        root: the folder of class folders.
        source_pattern: a regular expression searched in each clip's path below the root (forward
            slashes); its first group is the source. Without it each clip is its own source.

    Raises:
        DatasetError: no such folder, fewer than two classes, a class without clips, a pattern
            that is wrong or matches not every clip, files that cannot be read.
    """
    pattern = None if source_pattern is None else _compiled(source_pattern)
    root = data_root(root, _EXPECTED)
    folders = visible_folders(root)
    if len(folders) < 2:
        number = "one class folder" if folders else "no class folders"
        raise DatasetError(f"{root}: {number}; expected {_EXPECTED}")
    paths = [
        [file.relative_to(root).as_posix() for file in visible_files(folder)] for folder in folders
    ]
    sources = {} if pattern is None else _sources(pattern, [p for below in paths for p in below])
    found: list[FoundClip] = []
    faults: list[str] = []
    for label, folder in enumerate(folders):
        if not paths[label]:
            faults.append(f"{folder}: no clips; expected {_EXPECTED}")
        for path in paths[label]:
            source = sources.get(path, path)
            if source is None:
                faults.append(
                    f"{root / path}: data.source_pattern {source_pattern!r} finds nothing"
                )
            found.append(FoundClip(path, label, None, source or path))
    if faults:
        raise DatasetError(*faults)
    classes = tuple(folder.name for folder in folders)
    return Dataset("folder", root, classes, hashed_clips(root, found))


def _compiled(source_pattern: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            # Of what a later Python may read otherwise; its text names a line of this file.
            warnings.simplefilter("ignore")
            pattern = re.compile(source_pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"data.source_pattern: found {source_pattern!r}; allowed a regular expression ({error})"
        ) from None
    if not pattern.groups:
        raise DatasetError(
            f"data.source_pattern: found {source_pattern!r}; "
            "allowed a regular expression with a group, e.g. '([0-9]+)-[A-Z]'"
        )
    return pattern


def _sources(pattern: re.Pattern[str], paths: list[str]) -> dict[str, str | None]:
    """What the first group finds in each path, None where nothing."""
    try:
        with _limited(_PATTERN_SECONDS):
            matches = {path: pattern.search(path) for path in paths}
    except TimeoutError:
        raise DatasetError(
            f"data.source_pattern: found {pattern.pattern!r}, which takes more than "
            f"{_PATTERN_SECONDS:g} s; allowed a regular expression without nested repetitions"
        ) from None
    return {path: match[1] if match else None for path, match in matches.items()}


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so long, also out of the regular expression engine."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    if threading.current_thread() is not threading.main_thread():
        # Python lets only the main thread have handlers of signals.
        yield
        return
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
