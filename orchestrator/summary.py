"""The summary of a run directory: tables, plots and the report, made from it alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.plot import Plot
from orchestrator.tables import write_tables


@dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        tables: CSV files.
        plots: pictures, in the order in which they are read.
        report: `report.html`.
    """

    tables: tuple[Path, ...]
    plots: tuple[Plot, ...]
    report: Path


def summarize(run_dir: Path) -> Summary:
    """Write everything that a reader wants of a run directory, anew.

    Works on a finished run directory and on one whose sweep is running or was killed.

    Raises:
        RunDirectoryError: there is no plan, a file is of another format version, or something
            cannot be written.
    """
    tables = write_tables(run_dir)
    # Not at module level: drawing takes a second to import, and a sweep draws at its end only.
    from orchestrator.plots import write_plots
    from orchestrator.report import write_report

    plots = write_plots(run_dir)
    return Summary(tuple(tables), tuple(plots), write_report(run_dir, plots))
