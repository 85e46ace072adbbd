"""Run: a sweep that was run, and its tables as data frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.configuration_scores import Best, best_configuration
from orchestrator.outcomes import plan_of
from orchestrator.outer_results import Estimate
from orchestrator.records import Status
from orchestrator.run_directory import RunDirectory
from orchestrator.trials import Plan

if TYPE_CHECKING:
    import pandas as pd

_SUMMARY = "run_summary_"


@dataclass(frozen=True)
class Run:
    """How a sweep ended, or stands, and what it left on disk.

    The data frames are read when they are first asked for, and kept.

    Attributes:
        path: the run directory, absolute.
        plan: every trial.
        total: how many of them there will be, outer trials that are yet to be chosen included.
        finished: how many of them have finished.
        failed: how many have failed and not finished since.
        pruned: how many were given up.
        report: `report.html`; None where it could not be made.
        best: the best configuration, if one has all its folds.
        interrupted: stopped by a signal, or a notebook's stop button; the same call goes on.
        selection: the best one's test score by other ways of choosing the epoch, in a line; empty
            where that is not known.
        estimate: of a nested cross-validation, what its choices are worth; None without.
    """

    path: Path
    plan: Plan = field(repr=False)
    total: int
    finished: int
    failed: int
    pruned: int
    report: Path | None
    best: Best | None = field(repr=False)
    interrupted: bool = False
    estimate: Estimate | None = None
    selection: str = ""

    @classmethod
    def read(cls, path: Path) -> Run:
        """The run in a run directory, by its tables.

        Raises:
            RunDirectoryError: it is none, is of another format version or lacks its tables.
        """
        from orchestrator.frames import read_table

        directory = RunDirectory(path)
        plan = plan_of(directory)
        trials = read_table(directory.tables / "trials.csv", plan)
        done = trials[trials["status"] == Status.FINISHED]
        scores = done[plan.metric].astype(object).where(done[plan.metric].notna(), None)
        report = path / "report.html"
        run = cls(
            path=path,
            plan=plan,
            total=len(plan.every) - len(plan.pruned) + plan.to_come,
            finished=len(done),
            failed=int((trials["status"] == Status.FAILED).sum()),
            pruned=int((trials["status"] == Status.PRUNED).sum()),
            report=report if report.is_file() else None,
            best=best_configuration(plan, dict(zip(done["trial"], scores, strict=True))),
        )
        run.__dict__["trials"] = trials
        return run

    @property
    def exit_code(self) -> int:
        """That of `foldgrid run`: 0 every trial finished, 1 some failed, 130 interrupted."""
        if self.interrupted:
            return 130
        return 0 if self.finished == self.total else 1

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row a trial in plan order: what varies, status, every metric, the error."""
        return self.table("trials")

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row an epoch of a trial that has finished or was given up: the learning curves."""
        return self.table("epochs")

    @cached_property
    def configurations(self) -> pd.DataFrame:
        """A row a configuration: its score by fold, mean, standard deviation and rank."""
        return self.table("configurations")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row a clip of a finished trial: label, prediction, probabilities."""
        return self.table("predictions")

    @cached_property
    def confusion_matrices(self) -> pd.DataFrame:
        """A row a cell of a trial's matrix that is not zero."""
        return self.table("confusion_matrices")

    @cached_property
    def hyperparameters(self) -> pd.DataFrame:
        """A row a trial: its parameters beside its results."""
        return self.table("hyperparameters")

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """A row a model: its parameter counts."""
        return self.table("parameters")

    @cached_property
    def timings(self) -> pd.DataFrame:
        """A row a trial that has ended: when, where and how long."""
        return self.table("timings")

    @cached_property
    def run_summaries(self) -> dict[str, pd.DataFrame]:
        """The reports' tables by name, the metric as the index."""
        found = sorted((self.path / "tables").glob(f"{_SUMMARY}*.csv"))
        return {
            path.stem.removeprefix(_SUMMARY): self.table(path.stem).set_index("Metric")
            for path in found
        }

    def table(self, name: str) -> pd.DataFrame:
        """The table `tables/<name>.csv`, read anew.

        Raises:
            RunDirectoryError: there is none, or it cannot be read.
        """
        # Not at module level: the command line needs no data frames, and pandas is slow to import.
        from orchestrator.frames import read_table

        return read_table(RunDirectory(self.path).tables / f"{name}.csv", self.plan)
