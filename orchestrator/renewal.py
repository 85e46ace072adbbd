"""TableRenewal: the tables of a running sweep, written anew beside it now and then.

For thousands of trials this takes seconds, in which the driver has trials to start: a thread of
its own does it, and the more seldom the longer it takes.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

from orchestrator.errors import InterruptionError
from orchestrator.output_folder import summarizing
from orchestrator.tables import write_tables

SECONDS = 60.0
"""Between two renewals at least."""

SHARE = 0.05
"""Of the time, that renewals take at most."""


class TableRenewal:
    """Renews the tables of one run directory, begun by whoever notices that there is news."""

    def __init__(self, run_dir: Path, seconds: float = SECONDS) -> None:
        """Begin to count: the first renewal is due after so many seconds."""
        self._run_dir = run_dir
        self._seconds = seconds
        self._due = time.monotonic() + seconds
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._error: Exception | None = None

    def __enter__(self) -> TableRenewal:
        """Nothing is begun yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Break off a renewal: who comes after writes the tables himself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def news(self) -> None:
        """A trial ended: begin a renewal if one is due and none is under way.

        Raises:
            RunDirectoryError: the tables could not be written the last time.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        if self._error is not None:
            raise self._error
        if time.monotonic() >= self._due:
            # A daemon, so that it does not hold up a driver that is told twice to stop.
            self._thread = threading.Thread(target=self._renew, daemon=True)
            self._thread.start()

    def _renew(self) -> None:
        begun = time.monotonic()
        try:
            # Somebody else who writes them now writes them as well as we would.
            with summarizing(self._run_dir, 0) as alone:
                if alone:
                    write_tables(self._run_dir, self._stop.is_set)
        except InterruptionError:
            return
        except Exception as error:
            self._error = error
        taken = time.monotonic() - begun
        self._due = begun + max(self._seconds, taken / SHARE)
