"""The folder for what Ray and Tune write during a sweep, in the system's temporary directory."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import ClusterError

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""Names the folder in which torch keeps what it has compiled; processes may share it."""

_PREFIX = "foldgrid-"

_LONGEST_PLACE = 13
"""Characters of the temporary directory that leave room for the path of a socket: of 107 bytes Ray
takes 64 below its folder (`/session_<time>_<pid>/sockets/plasma_store`), the folder itself 30."""


@contextmanager
def session_folder() -> Iterator[Path]:
    """A folder that is gone afterwards; those of drivers that were killed go now.

    What the workers that start meanwhile compile is kept there for one another: torch's own choice
    would stay in the system's temporary directory for ever.

    Raises:
        ClusterError: it cannot be made.
    """
    _sweep_leftovers()
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_place()))
    except OSError as error:
        place = error.filename or "the temporary directory"
        raise ClusterError(f"{place}: cannot write: {error.strerror or error}") from error
    named = os.environ.setdefault(_CACHE_VARIABLE, str(folder / "compiled"))
    try:
        yield folder
    finally:
        if Path(named).is_relative_to(folder):
            os.environ.pop(_CACHE_VARIABLE, None)
        shutil.rmtree(folder, ignore_errors=True)


def name_compiled_folder() -> None:
    """Let torch compile into a folder that goes with this process, where nobody named another.

    That of a process that was killed goes with the next sweep on the machine.
    """
    if _CACHE_VARIABLE not in os.environ:
        folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-compiled-", dir=_place())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ[_CACHE_VARIABLE] = folder


def _place() -> str:
    """The system's temporary directory, or `/tmp` where its path is too long for Ray's sockets."""
    place = tempfile.gettempdir()
    return place if len(os.fsencode(place)) <= _LONGEST_PLACE else "/tmp"


def _sweep_leftovers() -> None:
    """Remove the folders of drivers that were killed; those that live keep theirs."""
    for folder in Path(_place()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
