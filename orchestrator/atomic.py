"""Atomic files: another process sees the old content or the new one, never a part of it."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO, cast

from features.claims import abandoned, claimed
from orchestrator.errors import RunDirectoryError

_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}\.tmp")


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[TextIO]:
    """A text stream that takes the place of `path` when the block ends well.

    UTF-8, line ends as written; what UTF-8 cannot hold (half of a surrogate pair, as in a file
    name that is not UTF-8) becomes a backslash escape. After an error nothing has changed. A
    killed process may leave its temporary file, hidden and harmless, beside `path`, for
    `remove_abandoned` to find.

    Args:
        path: the file, in a folder that exists.
        durable: wait until the content is on the disk, so that it outlives a power failure; not
            worth its milliseconds for a file that can be made again.

    Raises:
        RunDirectoryError: the file cannot be written: disk full, no permission.
    """
    with _replacing(path, durable=durable, binary=False) as stream:
        yield cast("TextIO", stream)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a whole file of bytes atomically, and durably unless said otherwise.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    with _replacing(path, durable=durable, binary=True) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole file atomically and durably.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    with replacing(path) as stream:
        stream.write(text)


def update_text(path: Path, text: str) -> None:
    """Write a whole file atomically, not durably; one that holds the text already stays as it is.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    write_bytes(path, data, durable=False)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically and durably; floats in the form that reads back the same.

    Raises:
        RunDirectoryError: it cannot be written.
        ValueError: NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(data, allow_nan=False) + "\n")


def probe(folder: Path) -> None:
    """Write a file and remove it.

    Raises:
        OSError: that cannot be.
    """
    with _temporary(folder) as path:
        path.write_bytes(b"x")


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of killed processes directly in a folder, where that can be."""
    with suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry) for entry in entries if _TEMPORARY.fullmatch(entry.name)]
        for path in found:
            with abandoned(path) as left, suppress(OSError):
                if left:
                    path.unlink()


def reason(error: OSError) -> str:
    """What the system says of an error, without the path."""
    return error.strerror or type(error).__name__


@contextmanager
def _replacing(path: Path, *, durable: bool, binary: bool) -> Iterator[IO[Any]]:
    try:
        with _temporary(path.parent) as temporary:
            with _open(temporary, binary) as stream:
                yield stream
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            temporary.replace(path)
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot write: {reason(error)}") from error


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A new file that nobody else removes; gone afterwards unless it was renamed."""
    while True:
        # The random part keeps two machines apart that share the folder and the process id.
        path = folder / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            path.touch()
            with claimed(path) as ours:
                if ours:
                    yield path
                    return
        finally:
            with suppress(OSError):
                path.unlink()


def _open(path: Path, binary: bool) -> IO[Any]:
    if binary:
        return path.open("wb")
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
