"""The feature cache: arrays on disk, found again by what they were made from.

An entry is a folder `<key>` with `features.npy` and `manifest.json`. It is made in a folder of its
own, closed by its manifest, and renamed into place; only closed entries whose checksum holds are
believed. Writers of the same key do not disturb each other: the first one to finish wins.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from features.arrays import FeatureArray
from features.claims import abandoned, claimed
from features.clips import Clip, Dataset
from features.extract import EXTRACTOR_VERSION
from features.fingerprint import FINGERPRINT_VERSION
from features.near_duplicates import NearDuplicate, near_duplicates
from features.spec import FeatureSpec
from features.workers import RowFile, extract_all

FORMAT_VERSION = 5
"""Of the files of an entry."""

_CHECKED = 1 << 23
"""Bytes of the array file that have a checksum of their own."""

_READ = 1 << 18
"""Bytes that are read at a time: what a processor's cache holds."""

_ARRAY, _MANIFEST = "features.npy", "manifest.json"
_ENTRY_NAME = re.compile(r"[0-9a-f]{64}")
_UNFINISHED_NAME = re.compile(r"unfinished-[0-9a-f]{32}")

_PACKAGES = {
    "waveform": ("numpy", "soundfile", "soxr"),
    "torchaudio": ("torch", "torchaudio"),
    "librosa": ("librosa", "scipy"),
    "mel_image": ("torch", "torchvision"),
}
"""What computes the features of a kind or backend beside what reads a waveform; another version
may give other digits."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """A clip that cannot be used.

    Attributes:
        clip: the clip.
        problem: one line, without the path.
    """

    clip: Clip
    problem: str


@dataclass(frozen=True)
class Extraction:
    """The features of a dataset.

    Attributes:
        array: `[n, *spec.stored_shape]` of `spec.stored_dtype`, read-only and mapped from disk;
            row `i` belongs to `dataset.clips[i]`, the rows of bad clips are NaN, or 0 in uint8.
        bad: the clips that cannot be used, in order.
        near_duplicates: clips of near-identical audio; the same for every kind of features.
        cached: whether the array was found in the cache.
        key: what it is found by.
    """

    array: FeatureArray
    bad: tuple[LeftOut, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    cached: bool
    key: str


def cache_root() -> Path:
    """`$FOLDGRID_CACHE`, else `$XDG_CACHE_HOME/foldgrid`, else `~/.cache/foldgrid`; absolute."""
    if own := os.environ.get("FOLDGRID_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification: relative paths are invalid and to be ignored.
    folder = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return folder / "foldgrid"


def features_of(
    dataset: Dataset,
    spec: FeatureSpec,
    *,
    cache: Path,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """The features of every clip, from the cache or extracted now and kept there.

    Args:
        dataset: at least one clip.
        spec: kind and parameters.
        cache: the cache's folder; made where it is missing.
        workers: processes to extract with; the result does not depend on it.
        progress: called in this process with the number of clips done and of all.

    Raises:
        DatasetError: a file's content has changed since it was listed.
        OSError: a file cannot be read, or the cache not be written.
        RuntimeError: a worker process died.
    """
    if not dataset.clips:
        raise ValueError("a dataset without clips has no features")
    entry = cache / _key(dataset, spec)
    found = _read(entry, dataset, spec, workers)
    if found is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(cache)
    with _folder_of_own(cache) as folder:
        path = folder / _ARRAY
        rows = _row_file(path, len(dataset.clips), spec)
        findings = extract_all(dataset, spec, rows, workers, progress or _no_progress)
        with ThreadPoolExecutor(1) as beside:
            pairs = beside.submit(near_duplicates, dataset.clips, findings.fingerprints)
            checksum = _checksum(path, workers)
            near = pairs.result()
        _close(folder, entry.name, spec, findings.bad, near, checksum)
        left_out = tuple(LeftOut(dataset.clips[i], problem) for i, problem in findings.bad.items())
        # Mapped before it is renamed: it stays readable whatever becomes of the entry.
        made = Extraction(_mapped(path), left_out, near, cached=False, key=entry.name)
        _publish(folder, entry)
    return made


def cache_size(cache: Path) -> tuple[int, int]:
    """The number of entries and the bytes of all that foldgrid has written there."""
    entries = _entries(cache)
    folders = [*entries, *_unfinished(cache)]
    return len(entries), sum(_bytes(folder) for folder in folders)


def clear_cache(cache: Path) -> tuple[int, int]:
    """Remove every entry, and unfinished ones that nobody works on.

    Anything else in the folder stays.

    Returns:
        The number of entries and the bytes removed.
    """
    entries = _entries(cache)
    freed = sum(map(_bytes, entries)) + _remove_abandoned(cache)
    for entry in entries:
        _remove(entry)
    return len(entries), freed


def _key(dataset: Dataset, spec: FeatureSpec) -> str:
    users = ("waveform", spec.kind, getattr(spec, "backend", ""))
    packages = {package for user in users for package in _PACKAGES.get(user, ())}
    versions = {package: version(package) for package in packages}
    made_by = [FORMAT_VERSION, EXTRACTOR_VERSION, FINGERPRINT_VERSION, versions]
    hashes = [clip.sha256 for clip in dataset.clips]
    text = json.dumps([spec.model_dump(mode="json"), made_by, hashes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _close(
    folder: Path,
    key: str,
    spec: FeatureSpec,
    bad: dict[int, str],
    near: tuple[NearDuplicate, ...],
    checksum: str,
) -> None:
    """Write the manifest, which says that the array is complete and what it is."""
    path = folder / _ARRAY
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "extractor_version": EXTRACTOR_VERSION,
        "key": key,
        "spec": spec.model_dump(mode="json"),
        "dtype": spec.stored_dtype,
        "shape": list(_mapped(path).shape),
        "bad": [[index, problem] for index, problem in bad.items()],
        "near_duplicates": [[n.first, n.second, n.similarity] for n in near],
        "array_checksum": checksum,
    }
    manifest["checksum"] = _digest(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / _MANIFEST).write_text(text + "\n", encoding="utf-8")


def _row_file(path: Path, rows: int, spec: FeatureSpec) -> RowFile:
    """An empty array file of full size: the header now, the rows later."""
    header = {
        "descr": np.dtype(spec.stored_dtype).newbyteorder("<").str,
        "fortran_order": False,
        "shape": (rows, *spec.stored_shape),
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        file.truncate(offset + rows * spec.stored_bytes)
    return RowFile(path, offset, spec.stored_bytes)


def _publish(folder: Path, entry: Path) -> None:
    """Rename a closed folder to its place; where another writer was sooner, its entry stays."""
    try:
        folder.rename(entry)
    except OSError as error:
        if not (entry / _MANIFEST).is_file():
            _log.warning("%s: these features are not kept: %s", entry, error.strerror)


def _read(entry: Path, dataset: Dataset, spec: FeatureSpec, workers: int) -> Extraction | None:
    """What a valid entry holds; None without one, and a warning if it is there but not valid."""
    if not entry.is_dir():
        return None
    try:
        array, manifest = _checked(entry, len(dataset.clips), spec, workers)
        bad = tuple(LeftOut(dataset.clips[index], problem) for index, problem in manifest["bad"])
        near = tuple(NearDuplicate(*pair) for pair in manifest["near_duplicates"])
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        if not entry.is_dir():
            # Cleared by another process just now.
            return None
        _log.warning("%s: damaged cache entry (%s); made again", entry, error)
        _remove(entry)
        return None
    return Extraction(array, bad, near, cached=True, key=entry.name)


def _checked(
    entry: Path, rows: int, spec: FeatureSpec, workers: int
) -> tuple[FeatureArray, dict[str, Any]]:
    manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
    for field, expected in (("format_version", FORMAT_VERSION), ("key", entry.name)):
        if manifest[field] != expected:
            raise ValueError(f"{field} {manifest[field]!r} instead of {expected!r}")
    if manifest.pop("checksum") != _digest(manifest):
        raise ValueError(f"the checksum of {_MANIFEST} does not hold")
    if _checksum(entry / _ARRAY, workers) != manifest["array_checksum"]:
        raise ValueError(f"the checksum of {_ARRAY} does not hold")
    array = _mapped(entry / _ARRAY)
    shape = (rows, *spec.stored_shape)
    if array.shape != shape or array.dtype != spec.stored_dtype:
        raise ValueError(f"{array.dtype} {array.shape} instead of {spec.stored_dtype} {shape}")
    return array, manifest


def _mapped(path: Path) -> FeatureArray:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path, workers: int) -> str:
    """Hash of the checksums of a file's blocks, in order: several cores can work on it.

    Those are CRC-32, which takes half the time of SHA-256: it is damage that they are to show.
    """
    starts = range(0, path.stat().st_size, _CHECKED)
    with ThreadPoolExecutor(workers) as threads:
        blocks = list(threads.map(lambda start: _block_checksum(path, start), starts))
    return hashlib.sha256(b"".join(blocks)).hexdigest()


def _block_checksum(path: Path, start: int) -> bytes:
    checksum, left, piece = 0, _CHECKED, memoryview(bytearray(_READ))
    # Read, not mapped: what is damaged on the disk is then an error and no fatal signal.
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while count := file.readinto(piece[:left]):
            checksum = zlib.crc32(piece[:count], checksum)
            left -= count
    return checksum.to_bytes(4, "big")


@contextmanager
def _folder_of_own(cache: Path) -> Iterator[Path]:
    """A new folder in the cache; gone afterwards unless it was renamed."""
    while True:
        folder = cache / f"unfinished-{uuid.uuid4().hex}"
        folder.mkdir()
        with claimed(folder) as ours:
            if not ours:
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return


def _entries(cache: Path) -> list[Path]:
    """Folders that are named and filled as entries are."""
    return [
        folder
        for folder in _folders(cache, _ENTRY_NAME)
        if (folder / _MANIFEST).is_file() or (folder / _ARRAY).is_file()
    ]


def _unfinished(cache: Path) -> list[Path]:
    return _folders(cache, _UNFINISHED_NAME)


def _folders(cache: Path, name: re.Pattern[str]) -> list[Path]:
    if not cache.is_dir():
        return []
    return sorted(f for f in cache.iterdir() if name.fullmatch(f.name) and f.is_dir())


def _remove_abandoned(cache: Path) -> int:
    """Remove what writers that died have left; the bytes freed."""
    freed = 0
    for folder in _unfinished(cache):
        with abandoned(folder) as left:
            if left:
                freed += _bytes(folder)
                _remove(folder)
    return freed


def _remove(folder: Path) -> None:
    """Remove the files of an entry, and the folder if nothing else is in it."""
    for name in (_MANIFEST, _ARRAY):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _bytes(folder: Path) -> int:
    sizes = 0
    for name in (_ARRAY, _MANIFEST):
        with suppress(FileNotFoundError):
            sizes += (folder / name).stat().st_size
    return sizes


def _no_progress(done: int, total: int) -> None:
    pass
