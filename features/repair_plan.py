"""The plan of a repair: every file of a folder and the name that it gets in the clean copy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import soundfile

from features.formats import promised, sniff
from features.journal import JOURNAL, readable
from features.native_stderr import muted

LONGEST_NAME = 255
"""Bytes of a file's name on every usual file system."""


@dataclass(frozen=True, slots=True)
class RepairJob:
    """A file of the source.

    Attributes:
        source: relative to the source folder.
        target: relative to the target folder; no two jobs have the same.
        audio: whether content or extension says that it is audio.
        beside_audio: whether its folder, not the root, holds audio, so that anything else in
            it would be taken for a clip.
        refusal: why nothing can be made of it; empty for a readable file.
    """

    source: Path
    target: PurePosixPath
    audio: bool
    beside_audio: bool
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    refusal: str = ""


def plan_repair(source: Path) -> list[RepairJob]:
    """Every file below a folder in order of its path.

    Links are followed, except those that lead back to a folder on their own way. Files that
    keep their name get it first; another one that would get the same is called `a.mp3.wav`,
    and if that is taken too, `a.2.wav`. Names that differ only in the case of their letters
    count as the same, since on some systems they are.
    """
    found = sorted(_walk(source, Path(), (source.resolve(),)), key=lambda f: f.path.as_posix())
    audio = {f.path for f in found if not f.refusal and _looks_like_audio(source / f.path)}
    folders = {path.parent for path in audio}
    taken = {JOURNAL} | {_key(PurePosixPath(readable(f))) for f in _folders(found)}
    targets: dict[Path, PurePosixPath] = {}
    for file in sorted(found, key=lambda f: (f.path in audio) + (not _keeps_name(f.path))):
        targets[file.path] = _free_name(file.path, file.path in audio, taken)
    return [
        RepairJob(
            f.path,
            targets[f.path],
            f.path in audio,
            f.path.parent in folders and f.path.parent != Path(),
            f.refusal,
        )
        for f in found
    ]


def _walk(root: Path, folder: Path, way: tuple[Path, ...]) -> Iterator[_Found]:
    try:
        entries = list(os.scandir(root / folder))
    except OSError as error:
        yield _Found(folder, f"cannot be read: {error.strerror or type(error).__name__}")
        return
    for entry in entries:
        path = folder / entry.name
        if not entry.is_dir():
            regular = (root / path).is_file()
            hidden = any(part.startswith(".") for part in path.parts)
            yield _Found(path, "hidden" if hidden else "" if regular else "no regular file")
            continue
        real = (root / path).resolve()
        if real in way:
            yield _Found(path, "a link that leads back to its own folder")
        else:
            yield from _walk(root, path, (*way, real))


def _folders(found: list[_Found]) -> set[Path]:
    return {parent for f in found for parent in f.path.parents if parent != Path()}


def _keeps_name(path: Path) -> bool:
    return path.suffix == ".wav"


def _free_name(path: Path, audio: bool, taken: set[str]) -> PurePosixPath:
    for name in _names(path, audio):
        target = PurePosixPath(readable(path.parent / _shortened(name)))
        if _key(target) not in taken:
            taken.add(_key(target))
            return target
    raise AssertionError("names do not end")


def _names(path: Path, audio: bool) -> Iterator[str]:
    if not audio:
        yield path.name
        yield from (f"{path.stem}.{n}{path.suffix}" for n in count(2))
    stem = path.stem if promised(path) is not None else path.name
    yield f"{stem}.wav"
    yield f"{path.name}.wav"
    yield from (f"{stem}.{n}.wav" for n in count(2))


def _shortened(name: str) -> str:
    """A name that a file system takes; a longer one loses its end and gets a hash of itself."""
    content = os.fsencode(name)
    if len(readable(Path(name)).encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(content).hexdigest()[:8]
    suffix = Path(name).suffix[:16]
    start = readable(Path(name)).encode()[: LONGEST_NAME - 32].decode(errors="ignore")
    return f"{start}~{digest}{suffix}"


def _key(path: PurePosixPath) -> str:
    return path.as_posix().casefold()


def _looks_like_audio(path: Path) -> bool:
    if promised(path) is not None:
        return True
    try:
        with path.open("rb") as file:
            return sniff(file.read(16)) is not None or _opens(file)
    except OSError:
        return False


def _opens(file: BinaryIO) -> bool:
    """Whether libsndfile knows the format, one of the rarer ones: AU, CAF, W64."""
    # The descriptor itself: a buffered file need not move it.
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    try:
        # By its descriptor, which has no name: soundfile would believe the extension `.raw`.
        with muted(), soundfile.SoundFile(file.fileno(), closefd=False):
            return True
    except (soundfile.LibsndfileError, RuntimeError):
        return False
