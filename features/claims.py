"""Claims: which half-made files and folders somebody still works on.

A claim is a lock, which the system lets go of when its owner dies, however it dies. What nobody
claims was left by a process that was killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DAY = 86_400


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Claim a new file or folder for as long as the block runs.

    Gives whether it is still there: somebody who tidies up may have come in between.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        yield False
        return
    try:
        # A file system without locks has no claims either, see `abandoned`.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield _there(path, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Whether nobody works on a file or folder; nobody begins to while the block runs.

    On a file system without locks: whether it has not changed for a day.
    """
    try:
        descriptor = _open(path)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    except OSError:
        yield time.time() - os.fstat(descriptor).st_mtime > _DAY
    else:
        yield _there(path, descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    # Over a network a lock needs a file that is open for writing; a folder never is.
    mode = os.O_RDONLY if path.is_dir() else os.O_RDWR
    return os.open(path, mode | os.O_NOFOLLOW)


def _there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        return False
