"""The story of a command: the whole of it in `log.txt`, its warnings on the console."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from orchestrator.atomic import reason
from orchestrator.errors import SHOWN, RunDirectoryError, printable
from orchestrator.progress import say

TOLD = {"told": True}
"""`extra` of a warning for the log and the report alone: the console has been told already."""

_LOGGERS = ("orchestrator", "features", "models")


class _LogFile(logging.FileHandler):
    """A log that gives up where the disk is full or gone: others tell of that."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name there
        """Nothing: Python would print a traceback for each line."""


class _Warnings(logging.Handler):
    """Shows each warning once, and of one kind no more than are read."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._met: set[str] = set()
        self._kinds: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning; an error is told by whoever ends the command with it."""
        text = record.getMessage()
        ours = record.name.partition(".")[0] in _LOGGERS
        told = record.levelno > logging.WARNING or getattr(record, "told", False)
        if not ours or told or text in self._met:
            return
        self._met.add(text)
        self._kinds[str(record.msg)] += 1
        if self._kinds[str(record.msg)] <= SHOWN:
            self._show(f"warning: {text}")

    def close(self) -> None:
        """Say how many were not shown."""
        more = sum(max(count - SHOWN, 0) for count in self._kinds.values())
        if more:
            self._show(f"warning: and {more} more like these")
        super().close()

    def _show(self, line: str) -> None:
        # Quiet is without progress, not without warnings.
        if self._console.quiet:
            print(printable(line), file=sys.stderr)
        else:
            say(self._console, printable(line))


@contextmanager
def logged(run_dir: Path) -> Iterator[None]:
    """Keep the full story in `log.txt`.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    path = run_dir / "log.txt"
    try:
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot write: {reason(error)}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    with _handled(handler, logging.INFO):
        yield


@contextmanager
def warned(console: Console) -> Iterator[None]:
    """Show what is logged as a warning on the console."""
    with _handled(_Warnings(console), logging.WARNING):
        yield


@contextmanager
def _handled(handler: logging.Handler, level: int) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level if logger.level == logging.NOTSET else min(level, logger.level))
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)
        handler.close()
