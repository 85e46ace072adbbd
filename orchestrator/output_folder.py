"""What every folder of outputs needs: to be made, and to be rid of what is stale."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from orchestrator import atomic
from orchestrator.errors import RunDirectoryError


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there.

    Raises:
        RunDirectoryError: it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
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
