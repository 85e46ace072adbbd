"""The summary of a run directory: tables, plots and the report, made from it alone."""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import FoldgridError, InterruptionError, RunDirectoryError
from orchestrator.outcomes import Results
from orchestrator.output_folder import summarizing
from orchestrator.plot import Plot
from orchestrator.run_directory import RunDirectory
from orchestrator.selection_rules import gap_line
from orchestrator.tables import Tables, write_tables

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        tables: CSV files.
        plots: pictures, in the order in which they are read.
        report: `report.html`; None where it or the plots could not be made.
        results: what all of it was made from.
        problem: why there is no report; empty otherwise.
        selection: what choosing the epoch in other ways would make of the best configuration's
            test score, in a line; empty where that is not known.
    """

    tables: tuple[Path, ...]
    plots: tuple[Plot, ...]
    report: Path | None
    results: Results
    problem: str = ""
    selection: str = ""


INTERRUPTED = "interrupted"
"""The problem of a summary that was stopped."""

_PATIENCE = 30.0
"""Seconds that a sweep at its end waits for a `foldgrid report` on its run directory."""


def summarize(
    run_dir: Path, *, running: bool | None = None, stop: Callable[[], bool] = lambda: False
) -> Summary:
    """Write everything that a reader wants of a run directory, anew.

    Works on a finished run directory and on one whose sweep is running or was killed. The tables
    come first: whatever may go wrong with a picture, they are there.

    Args:
        run_dir: the run directory.
        running: whether a driver is at work; None asks its lock.
        stop: asked before the plots and the report, which take longer than the tables; once it
            says so they stay as they were.

    Raises:
        RunDirectoryError: there is no plan, a file is of another format version, or something
            cannot be written.
    """
    if not RunDirectory(run_dir).plan_file.is_file():
        # Nothing is made where there is nothing to summarize.
        raise RunDirectoryError(f"{run_dir}: no run directory: it has no plan.json")
    with summarizing(run_dir, -1 if running is None else _PATIENCE):
        tables = write_tables(run_dir)
        summary = Summary(tables.files, (), None, tables.results, INTERRUPTED)
        if not stop():
            summary = _illustrated(run_dir, tables, running, stop)
        return replace(summary, selection=gap_line(tables.rules) if tables.rules else "")


@functools.cache
def load_drawing() -> None:
    """Import what the plots and the report need, in a thread and once: two seconds of work.

    For a sweep whose last trials leave a core idle.
    """

    def load() -> None:
        # What is missing here is missing again where it is needed, and told there.
        with suppress(Exception):
            for name in ("orchestrator.plots", "orchestrator.report", "sklearn.metrics"):
                importlib.import_module(name)

    threading.Thread(target=load, daemon=True).start()


def _illustrated(
    run_dir: Path, tables: Tables, running: bool | None, stop: Callable[[], bool]
) -> Summary:
    try:
        # Not at module level: drawing takes a second to import, and a sweep draws at its end only.
        from orchestrator.plots import write_plots
        from orchestrator.report import write_report

        plots = tuple(write_plots(tables.results, stop, tables.comparisons))
        report = write_report(run_dir, plots, running=running, plan=tables.results.plan)
        return Summary(tables.files, plots, report, tables.results)
    except InterruptionError:
        return Summary(tables.files, (), None, tables.results, INTERRUPTED)
    except FoldgridError:
        raise
    except Exception as error:
        # A night's work must not end with the traceback of a drawing library.
        _log.exception("plots and report")
        problem = f"{type(error).__name__}: {error}"
        return Summary(tables.files, (), None, tables.results, problem)
