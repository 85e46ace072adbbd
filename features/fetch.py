"""The published data sets, fetched from where their authors put them.

What is verified: the size and the checksum of the archive before it is unpacked, and the number
of clips after it. UrbanSound8K's MD5 is the one that the soundata package has for Zenodo's file.
ESC-50's author publishes none; its address names a commit, and size and SHA-256 are those that
others recorded of that archive, see `features.sources`. To our knowledge GitHub, where ESC-50 is,
does not continue a download that broke off, so that it starts over; Zenodo does.
"""

from __future__ import annotations

import csv
import difflib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.filesize import decimal

from features.clip_table import AUDIO
from features.clips import DatasetError
from features.download import download, verify
from features.files import visible_files
from features.progress import byte_bar
from features.sources import SOURCES, FetchError, Source
from features.unpack import unpack

__all__ = ["SOURCES", "FetchError", "Source", "fetch_dataset"]


def fetch_dataset(
    name: str,
    target: Path,
    report: Callable[[str], None],
    progress: bool = True,
    sources: Mapping[str, Source] = SOURCES,
) -> Path:
    """Download, verify and unpack a data set; what is complete already stays as it is.

    A download that broke off is continued by the same call. An archive that was put into the
    target by hand under its own name is taken instead, and stays. The data set appears in the
    target under its title at once and complete.

    Args:
        name: esc10, esc50 or urbansound8k.
        target: a folder, made where it is missing.
        report: gets each line on what happens.
        progress: show bars on stderr, if that is a terminal.
        sources: where the data sets are, by name; others for a mirror.

    Returns:
        The absolute folder to put at `data.root`.

    Raises:
        FetchError: another name, no room, no connection, another file than expected, a folder
            of that title that is not complete, another call at work in the target.
    """
    source = _named(name, sources)
    target = target.absolute()
    root = target / source.title
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if root.exists():
                _check_complete(source, root)
                report(f"{root} is complete ({source.clips} clips): nothing to download")
            else:
                report(f"{source.title}: {source.licence}; cite {source.citation}")
                _fetch(source, target, root, report, progress)
                report(f"{root}: {source.clips} clips")
    except OSError as error:
        place = error.filename or target
        raise FetchError(f"{place}: cannot be written: {error.strerror or error}") from None
    return root


def _named(name: str, sources: Mapping[str, Source]) -> Source:
    if name in sources:
        return sources[name]
    near = difflib.get_close_matches(name.lower(), list(sources), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise FetchError(f"NAME: found {name!r}; allowed {', '.join(sources)}{hint}")


def _fetch(
    source: Source, target: Path, root: Path, report: Callable[[str], None], progress: bool
) -> None:
    given = target / source.file
    part = target / f"{source.file}.part"
    if given.exists():
        _check_room(source, target, 0)
        report(f"taking {given}, which is there")
        verify(source, given)
        _unpack(source, given, root, report, progress)
        return
    have = part.stat().st_size if part.exists() else 0
    _check_room(source, target, max(source.size - have, 0))
    download(source, part, report, progress)
    _unpack(source, part, root, report, progress)
    part.unlink()


def _unpack(
    source: Source, archive: Path, root: Path, report: Callable[[str], None], progress: bool
) -> None:
    """Unpack beside the root and rename, so that the root is complete or not there."""
    report(f"the checksum is right; unpacking to {root}")
    temporary = root.with_name(f".{source.title}.unpacking")
    # Of a call that was killed; nobody else is at work here.
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with byte_bar("unpacking", source.unpacked, progress) as show:
            unpack(archive, source.file, temporary, 2 * source.unpacked, show)
        inside = temporary / source.inside
        if source.subset and (inside / source.table).is_file():
            _keep_subset(source, inside)
        _check_complete(source, inside, f"{archive}: the archive")
        inside.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep_subset(source: Source, folder: Path) -> None:
    """Leave only the clips of the subset, in the folder and in its table."""
    table = folder / source.table
    with table.open(encoding="utf-8-sig", newline="") as lines:
        header, *rows = csv.reader(lines)
    chosen, name = header.index(source.subset), header.index("filename")
    kept = [row for row in rows if row[chosen].strip().lower() == "true"]
    names = {row[name] for row in kept}
    for file in list(visible_files(folder / AUDIO)):
        if file.name not in names:
            file.unlink()
    with table.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines, lineterminator="\n").writerows([header, *kept])


def _check_complete(source: Source, root: Path, what: str = "") -> None:
    """Check that the table and as many clips as were published are there.

    Raises:
        FetchError: they are not.
    """
    try:
        clips = sum(1 for _ in visible_files(root / AUDIO))
    except DatasetError:
        clips = 0
    if clips == source.clips and (root / source.table).is_file():
        return
    without = "" if (root / source.table).is_file() else f" and no {source.table}"
    advice = "" if what else "; remove it, or name another TARGET"
    raise FetchError(
        f"{what or root}: found {clips} clips{without}; allowed {source.clips} clips with "
        f"{source.table}{advice}"
    )


def _check_room(source: Source, target: Path, download: int) -> None:
    free = shutil.disk_usage(target).free
    needed = download + source.unpacked
    if free < needed:
        raise FetchError(
            f"{target}: found {decimal(free)} of free disk space; allowed {decimal(needed)} or "
            f"more ({decimal(download)} to download, {decimal(source.unpacked)} unpacked)"
        )


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the target for this call; a lock on the folder itself, which leaves no file there.

    Raises:
        FetchError: another call holds it.
    """
    folder = os.open(target, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(f"{target}: another fetch is at work there; wait for it") from None
        except OSError:
            # Some network file systems lock no folders: then without.
            pass
        yield
    finally:
        os.close(folder)
