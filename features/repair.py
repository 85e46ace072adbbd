"""Repair: a clean copy of a folder of clips, each file that can be decoded as 16-bit WAV.

The source is only read. `repair.csv` in the target names every file and what became of it; it is
written line by line while the work goes on, which is how an interrupted repair is continued.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from features.audio import BadClip, decode_all
from features.formats import Format, promised, sniff
from features.inspection import inspect
from features.journal import JOURNAL, Journal, RepairedFile, readable

Progress = Callable[[int, int], None]


_HARMLESS = ("hidden", "no audio, beside clips")
"""Why files are left out that are no clips."""


class RepairError(ValueError):
    """The repair cannot begin; the message is one line."""


class Action(StrEnum):
    """What was done with a file."""

    COPIED = "copied"
    """It was a clean 16-bit WAV file, or no audio: the same bytes."""
    CONVERTED = "converted"
    """It was decoded whole and written as 16-bit WAV."""
    SAVED = "saved in part"
    """Something of it was lost or set to zero."""
    LEFT_OUT = "left out"
    """Nothing of it is in the target."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A file of the source and the name that it gets.

    Attributes:
        source: relative to the source folder.
        target: relative to the target folder, if the file is audio.
        beside_audio: whether its folder holds audio, so that anything else in it would be taken
            for a clip.
    """

    source: Path
    target: PurePosixPath
    beside_audio: bool


class Repair:
    """A clean copy of a folder of clips, to be written or to be gone on with.

    1. What can be decoded becomes `NAME.wav`, 16-bit, its channels kept, at `rate` or at its
       own; values beyond full scale are cut off, NaN and infinity become zero. A truncated file
       gives what is there.
    2. A clean 16-bit WAV file at the right rate is copied as it is.
    3. What is no audio is copied if it lies in the root, or in a folder without audio (tables of
       metadata); beside clips it is left out, since `dataset: folder` would take it for one.
       Hidden files and folders are left out too.
    4. Two files that would get one name: the one that is no `.wav` keeps its extension before
       the new one, `a.mp3.wav`.

    Attributes:
        files: number of files in the source.
    """

    def __init__(self, source: Path, target: Path, rate: int | None = None) -> None:
        """Look at the source; nothing is written yet.

        Args:
            source: the folder of clips; never written to.
            target: a folder that is empty, does not exist, or holds an earlier repair.
            rate: Hz of every file written; None keeps each one's own.

        Raises:
            RepairError: no such source, or a target within it, around it or with other files.
        """
        self._source, self._target, self._rate = source.resolve(), target.resolve(), rate
        _refuse(self._source, self._target)
        self._jobs = _jobs(self._source)
        self.files = len(self._jobs)

    def run(self, progress: Progress) -> tuple[RepairedFile, ...]:
        """Write what is not there yet; every file of the source in order of its path.

        Args:
            progress: called with the number of files done and of all.

        Raises:
            OSError: the target cannot be written.
        """
        self._target.mkdir(parents=True, exist_ok=True)
        journal = Journal(self._target)
        done = journal.valid(self._rate)
        rows = []
        with journal.appending() as append:
            for number, job in enumerate(self._jobs, 1):
                row = done.get(readable(job.source))
                if row is None or row.source_sha256 != _hash(self._source / job.source):
                    row = _repaired(self._source, self._target, job, self._rate)
                    append(row)
                rows.append(row)
                progress(number, self.files)
        journal.close(rows)
        return tuple(rows)


def lost(row: RepairedFile) -> bool:
    """Whether a file that should be a clip could not be saved."""
    return row.action == Action.LEFT_OUT and row.remark not in _HARMLESS


def _refuse(source: Path, target: Path) -> None:
    if not source.is_dir():
        fault = "not a folder" if source.exists() else "no such folder"
        raise RepairError(f"SOURCE: found {source}, {fault}; allowed a folder of clips")
    if target == source or source in target.parents or target in source.parents:
        raise RepairError(
            f"TARGET: found {target}, within or around SOURCE; allowed a folder apart"
        )
    if target.exists() and not target.is_dir():
        raise RepairError(f"TARGET: found {target}, not a folder; allowed a new or empty folder")
    if target.is_dir() and not (target / JOURNAL).exists() and any(target.iterdir()):
        raise RepairError(
            f"TARGET: found {target}, which holds other files; allowed a new or empty folder, "
            "or one of an earlier repair"
        )


def _jobs(source: Path) -> list[_Job]:
    """Every file in order of its path, with the name that it would get as audio."""
    files = sorted(_files(source, Path()), key=lambda path: path.as_posix())
    audio = {path for path in files if _looks_like_audio(source / path)}
    folders = {path.parent for path in audio}
    taken = {_wav(path, ".wav").as_posix().casefold() for path in audio if _is_wav(path)}
    jobs = []
    for path in files:
        name = _wav(path, ".wav")
        if path in audio and not _is_wav(path):
            if name.as_posix().casefold() in taken:
                name = _wav(path, path.suffix + ".wav")
            taken.add(name.as_posix().casefold())
        beside = path.parent in folders and path.parent != Path()
        jobs.append(_Job(path, name, beside))
    return jobs


def _files(root: Path, folder: Path) -> Iterator[Path]:
    """Files below a folder, links to files among them; links to folders may lead in circles."""
    for entry in os.scandir(root / folder):
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _files(root, path)
        elif not entry.is_dir():
            yield path


def _is_wav(path: Path) -> bool:
    return path.suffix.lower() == ".wav"


def _wav(path: Path, suffix: str) -> PurePosixPath:
    """The name of the repaired file; a name that is not UTF-8 is spelled with escapes."""
    known = promised(path) is not None
    stem = path.stem if known else path.name
    return PurePosixPath(readable(path.parent / (stem + suffix)))


def _looks_like_audio(path: Path) -> bool:
    if promised(path) is not None:
        return True
    try:
        with path.open("rb") as file:
            return sniff(file.read(16)) is not None
    except OSError:
        return False


def _repaired(source: Path, target: Path, job: _Job, rate: int | None) -> RepairedFile:
    row = RepairedFile(readable(job.source), rate)
    path = source / job.source
    if any(part.startswith(".") for part in job.source.parts):
        return replace(row, action=Action.LEFT_OUT, remark="hidden")
    if not path.is_file():
        return replace(row, action=Action.LEFT_OUT, remark="no regular file")
    try:
        content = path.read_bytes()
    except OSError as error:
        remark = f"cannot be read: {error.strerror or type(error).__name__}"
        return replace(row, action=Action.LEFT_OUT, remark=remark)
    row = replace(row, source_sha256=hashlib.sha256(content).hexdigest())
    if not _looks_like_audio(path):
        if job.beside_audio:
            return replace(row, action=Action.LEFT_OUT, remark="no audio, beside clips")
        _write(target / row.source, content)
        return replace(row, action=Action.COPIED, target=row.source, remark="no audio")
    return _repaired_audio(target, job, content, row)


def _repaired_audio(target: Path, job: _Job, content: bytes, row: RepairedFile) -> RepairedFile:
    found = inspect(job.source, content)
    row = replace(
        row,
        format=found.format.value if found.format else "",
        remark="; ".join(found.issues),
    )
    try:
        decoded = decode_all(content)
        samples = pcm(decoded.samples, decoded.rate, row.rate or decoded.rate)
    except BadClip as problem:
        remark = found.problem or str(problem)
        return replace(row, action=Action.LEFT_OUT, remark=remark)
    rate = row.rate or decoded.rate
    clean = found.format is Format.WAV and decoded.encoding == "PCM_16" and not decoded.problem
    if clean and rate == decoded.rate and _is_wav(job.source):
        action = Action.COPIED
    else:
        action = Action.SAVED if decoded.problem else Action.CONVERTED
        stream = io.BytesIO()
        soundfile.write(stream, samples, rate, subtype="PCM_16", format="WAV")
        content = stream.getvalue()
    _write(target / job.target, content)
    return replace(
        row,
        action=action,
        target=str(job.target),
        sample_rate=rate,
        channels=samples.shape[1],
        seconds=len(samples) / rate,
    )


def pcm(samples: NDArray[np.float32], rate: int, target: int) -> NDArray[np.int16]:
    """Samples `float32 [frames, channels]` as 16-bit ones, at another rate where asked for.

    NaN and infinity become zero, values beyond full scale are cut off. Samples that were 16-bit
    ones before come back the same at an equal rate.

    Raises:
        BadClip: the rate is beyond what can be converted, or not one sample is left.
    """
    finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    if rate != target:
        try:
            finite = soxr.resample(finite, rate, target)
        except (ValueError, RuntimeError):
            raise BadClip(f"cannot be resampled from {rate} Hz to {target} Hz") from None
        if not len(finite):
            raise BadClip(f"no samples at {target} Hz")
    # Not left to libsndfile, whose factors for reading and writing differ by 1 in 32768.
    levels: NDArray[np.int16] = np.clip(np.rint(finite * 32768.0), -32768, 32767).astype(np.int16)
    return levels


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _hash(path: Path) -> str:
    """The content's hash; empty for what is no regular file or cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
