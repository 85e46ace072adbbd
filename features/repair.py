"""Repair: a clean copy of a folder of clips, each file that can be decoded as 16-bit WAV.

The source is only read. `repair.csv` in the target names every file and what became of it; it is
written line by line while the work goes on, which is how an interrupted repair is continued.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from features.audio import BadClip, refuse_too_long
from features.companions import Names, in_line
from features.inspection import inspect
from features.journal import JOURNAL, Journal, RepairedFile, readable
from features.repair_plan import RepairJob, plan_repair

Progress = Callable[[int, int], None]


_DISK_LOST = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
)
"""Errors that the next file would meet too."""

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
    IN_LINE = "brought in line"
    """A table, its rows naming the repaired files, without those of files that were lost."""
    SAVED = "saved in part"
    """Something of it was lost or set to zero."""
    LEFT_OUT = "left out"
    """Nothing of it is in the target."""


class Repair:
    """A clean copy of a folder of clips, to be written or to be gone on with.

    1. What can be decoded becomes `NAME.wav`, 16-bit, its channels kept, at `rate` or at its
       own; values beyond full scale are cut off, NaN and infinity become zero. A truncated file
       gives what is there.
    2. A clean 16-bit WAV file at the right rate is copied as it is.
    3. What is no audio is copied if it lies in the root, or in a folder without audio (tables of
       metadata); beside clips it is left out, since `dataset: folder` would take it for one.
       A table that names clips is brought in line with their new names.
       Hidden files and folders are left out too.
    4. No two files get one name, see `features.repair_plan`.
    5. Links are followed, except those that lead back to their own folder.

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
        self._jobs = plan_repair(self._source)
        self.files = len(self._jobs)

    def run(
        self, progress: Progress, stop: Callable[[], bool] = lambda: False
    ) -> tuple[RepairedFile, ...] | None:
        """Write what is not there yet; every file of the source in order of its path.

        Args:
            progress: called with the number of files done and of all.
            stop: asked before each file; once it says so, what is done stays and nothing more
                is.

        Returns:
            What became of every file; None if it was stopped.

        Raises:
            RepairError: the target cannot be written from the beginning.
            OSError: the target was lost on the way: full, or not writable any more.
        """
        journal = Journal(self._target)
        before = self._begun(journal)
        rows = []
        with journal.appending() as append:
            for number, job in enumerate(self._jobs, 1):
                if stop():
                    return None
                row = before.get(readable(job.source))
                if row is None or not self._stands(row, job):
                    row = _repaired(self._source, self._target, job, self._rate)
                    append(row)
                rows.append(row)
                progress(number, self.files)
        rows = self._tables_in_line(rows)
        self._remove_stale(before, rows)
        journal.close(rows)
        return tuple(rows)

    def _tables_in_line(self, rows: list[RepairedFile]) -> list[RepairedFile]:
        """Rewrite tables that name clips which have another name now, or none."""
        sounds = [row for row, job in zip(rows, self._jobs, strict=True) if job.audio]
        names = Names(
            {row.source: row.target for row in sounds if row.target},
            {row.source for row in sounds if not row.target},
        )
        found = []
        for row, job in zip(rows, self._jobs, strict=True):
            if row.target and not job.audio and job.source.suffix.lower() == ".csv":
                content = (self._source / job.source).read_bytes()
                folder = job.source.parent.as_posix()
                content, said = in_line(content, "" if folder == "." else folder, names)
                row = _written(self._target, job, content, row)
                action = Action.IN_LINE if said else Action.COPIED
                row = replace(row, action=action, remark=said or "no audio")
            found.append(row)
        return found

    def _begun(self, journal: Journal) -> dict[str, RepairedFile]:
        """The rows of an earlier repair, the target being there and writable."""
        try:
            self._target.mkdir(parents=True, exist_ok=True)
            before = journal.read()
            with journal.appending():
                return before
        except OSError as error:
            reason = error.strerror or type(error).__name__
            found = f"TARGET: found {self._target}, {reason}"
            raise RepairError(f"{found}; allowed a folder to write to") from error

    def _stands(self, row: RepairedFile, job: RepairJob) -> bool:
        """Whether a file of an earlier repair is as this one would make it."""
        if row.rate != self._rate or row.source_sha256 != _hash(self._source / job.source):
            return False
        if not row.target:
            return bool(row.source_sha256)
        path = self._target / row.target
        try:
            same = path.stat().st_size == row.bytes
        except OSError:
            return False
        return same and row.target == str(job.target)

    def _remove_stale(self, before: dict[str, RepairedFile], rows: list[RepairedFile]) -> None:
        """Remove what an earlier repair made and this one would not."""
        made = {row.target for row in rows}
        for row in before.values():
            path = self._target / row.target
            if row.target and row.target not in made and _within(path, self._target):
                path.unlink(missing_ok=True)


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


def _repaired(source: Path, target: Path, job: RepairJob, rate: int | None) -> RepairedFile:
    row = RepairedFile(readable(job.source), rate)
    if job.refusal:
        return replace(row, action=Action.LEFT_OUT, remark=job.refusal)
    try:
        content = (source / job.source).read_bytes()
    except OSError as error:
        remark = f"cannot be read: {error.strerror or type(error).__name__}"
        return replace(row, action=Action.LEFT_OUT, remark=remark)
    row = replace(row, source_sha256=hashlib.sha256(content).hexdigest())
    try:
        if job.audio:
            return _repaired_audio(target, job, content, row)
        if job.beside_audio:
            return replace(row, action=Action.LEFT_OUT, remark="no audio, beside clips")
        row = replace(row, action=Action.COPIED, remark="no audio")
        return _written(target, job, content, row)
    except OSError as error:
        if error.errno in _DISK_LOST:
            raise
        remark = f"cannot be written: {error.strerror or type(error).__name__}"
        return replace(row, action=Action.LEFT_OUT, remark=remark)


def _written(target: Path, job: RepairJob, content: bytes, row: RepairedFile) -> RepairedFile:
    path = target / job.target
    if not _within(path, target):
        remark = "cannot be written: a link in the target leads out of it"
        return replace(row, action=Action.LEFT_OUT, remark=remark)
    _write(path, content)
    return replace(row, target=str(job.target), bytes=len(content))


def _repaired_audio(
    target: Path, job: RepairJob, content: bytes, row: RepairedFile
) -> RepairedFile:
    found, decoded = inspect(job.source, content)
    row = replace(
        row,
        format=found.format.value if found.format else "",
        remark="; ".join(found.issues),
    )
    if decoded is None:
        return replace(row, action=Action.LEFT_OUT, remark=found.problem)
    rate = row.rate or decoded.rate
    try:
        samples = pcm(decoded.samples, decoded.rate, rate)
    except BadClip as problem:
        return replace(row, action=Action.LEFT_OUT, remark=found.problem or str(problem))
    clean = content[:4] == b"RIFF" and decoded.encoding == "PCM_16" and not decoded.problem
    if clean and rate == decoded.rate and job.source.suffix.lower() == ".wav":
        action = Action.COPIED
    else:
        action = Action.SAVED if decoded.problem else Action.CONVERTED
        stream = io.BytesIO()
        soundfile.write(stream, samples, rate, subtype="PCM_16", format="WAV")
        content = stream.getvalue()
    row = replace(
        row,
        action=action,
        sample_rate=rate,
        channels=samples.shape[1],
        seconds=len(samples) / rate,
    )
    return _written(target, job, content, row)


def pcm(samples: NDArray[np.float32], rate: int, target: int) -> NDArray[np.int16]:
    """Samples `float32 [frames, channels]` as 16-bit ones, at another rate where asked for.

    NaN and infinity become zero, values beyond full scale are cut off. Samples that were 16-bit
    ones before come back the same at an equal rate.

    Raises:
        BadClip: the rate is beyond what can be converted, or not one sample is left.
    """
    finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    if rate != target:
        refuse_too_long(samples.size, rate, target)
        try:
            finite = soxr.resample(finite, rate, target)
        except (ValueError, RuntimeError):
            raise BadClip(f"cannot be resampled from {rate} Hz to {target} Hz") from None
        if not len(finite):
            raise BadClip(f"no samples at {target} Hz")
    loud = np.clip(finite, -1.0, 1.0)
    # Not left to libsndfile, whose factors for reading and writing differ by 1 in 32768.
    levels: NDArray[np.int16] = np.clip(np.rint(loud * 32768.0), -32768, 32767).astype(np.int16)
    return levels


def _within(path: Path, target: Path) -> bool:
    """Whether no link leads out of the target: it could lead anywhere, into the source too."""
    return path.parent.resolve().is_relative_to(target)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp")
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
