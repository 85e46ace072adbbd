"""What every folder of outputs needs: to be made, and to be rid of what is stale."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator import atomic
from orchestrator.errors import RunDirectoryError


@contextmanager
def summarizing(run_dir: Path, seconds: float) -> Iterator[bool]:
    """Let one process at a time write tables, plots and report of a run directory.

    Each of them reads the records after it was let in, so that the last one to write knows all:
    a `foldgrid report` that began before the end of a sweep does not undo the sweep's own tables.

    Args:
        run_dir: the run directory.
        seconds: to wait for another process; -1 for as long as it takes.

    Gives whether the other processes are kept out; where not, one of them is stuck.

    Raises:
        RunDirectoryError: the run directory cannot be written to.
    """
    lock = FileLock(run_dir / ".summary.lock", timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        raise RunDirectoryError(f"{run_dir}: cannot be locked: {error}") from error
    try:
        yield True
    finally:
        lock.release()


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there; what a killed process left half-written in it goes.

    Raises:
        RunDirectoryError: it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
        atomic.remove_abandoned(path)
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot write: {atomic.reason(error)}") from error


def remove_stale(folder: Path, patterns: tuple[str, ...], current: Set[str]) -> None:
    """Remove files that an earlier state left and this one has not.

    Args:
        folder: of the files.
        patterns: of the names that may be removed.
        current: names of those that stay.

    Raises:
        RunDirectoryError: one cannot be removed.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    for path in sorted(path for path in found if path.name not in current):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot remove: {atomic.reason(error)}") from error
