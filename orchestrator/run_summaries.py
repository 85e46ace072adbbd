"""Run summaries: the reports' tables, one column a run and one row a metric."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.csv_files import Cell, TableFolder, percent, text
from orchestrator.outcomes import Outcome, score_of
from orchestrator.run_sets import HEADS, RunSet, repeated, run_sets, twice_validated
from orchestrator.trials import Plan, Trial, canonical, file_name

LONGEST_NAME = 150
"""Characters of a file name, `.csv` included, before its middle is left out."""

INDEX = "run_summaries.csv"
PATTERN = "run_summary_*.csv"

ROWS: tuple[tuple[str, Callable[[Outcome], Cell]], ...] = (
    ("Epoch", lambda o: o.epoch.epoch if o.epoch else None),
    ("Test Accuracy (%)", lambda o: percent(score_of(o.test, "accuracy"))),
    ("Test F1 Score", lambda o: score_of(o.test, "f1")),
    ("Test Loss", lambda o: score_of(o.test, "loss")),
    ("Training Accuracy (%)", lambda o: percent(o.train_accuracy)),
    ("Training Loss", lambda o: o.train_loss),
    ("Validation Accuracy (%)", lambda o: percent(score_of(o.val, "accuracy"))),
    ("Validation Loss", lambda o: score_of(o.val, "loss")),
    ("Average Val Acc (%)", lambda o: percent(o.average_val_accuracy)),
)
"""The reports' row names; F1 is a fraction, losses are means per clip."""


@dataclass(frozen=True)
class RunSummary:
    """One table.

    Attributes:
        runs: the set that it belongs to.
        fold: the validation fold, where it is one table a fold.
        trials: one a column, in plan order.
    """

    runs: RunSet
    fold: int | None
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """The full file name."""
        settings = "".join(
            f"_{file_name(path)}={file_name(text(value))}" for path, value in self.runs.values
        )
        return f"{self._start}{settings}{self._end}"

    @property
    def short_name(self) -> str:
        """The file name with eight hexadecimal digits of a hash in place of the settings."""
        settings = canonical([self.runs.model, self.runs.values])
        return f"{self._start}_{hashlib.sha256(settings.encode()).hexdigest()[:8]}{self._end}"

    @property
    def _start(self) -> str:
        return f"run_summary_{file_name(self.runs.model)}"

    @property
    def _end(self) -> str:
        return ".csv" if self.fold is None else f"_fold{self.fold}.csv"


def write_run_summaries(folder: TableFolder, plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    """Write every run summary, and an index where a file name had to be shortened.

    Args:
        folder: of the tables.
        plan: every trial.
        outcomes: of every trial, by its identity.

    Raises:
        RunDirectoryError: a table cannot be written.
    """
    summaries = run_summaries(plan)
    names = file_names(summaries)
    labels = _Labels(plan)
    for summary, name in zip(summaries, names, strict=True):
        of_trials = [outcomes[trial.id] for trial in summary.trials]
        header = ["Metric", *(labels.column(summary, trial) for trial in summary.trials)]
        rows = ([row, *(value(outcome) for outcome in of_trials)] for row, value in ROWS)
        folder.write(name, header, rows)
    if any(name != summary.name for summary, name in zip(summaries, names, strict=True)):
        _write_index(folder, plan, summaries, names)


def run_summaries(plan: Plan) -> tuple[RunSummary, ...]:
    """The tables in plan order."""
    return tuple(summary for runs in run_sets(plan) for summary in _of_set(runs))


def file_names(summaries: Sequence[RunSummary]) -> list[str]:
    """A file name for each table: the full one, or the short one.

    Short is what is longer than `LONGEST_NAME`, and what would share its name with another
    table, on a file system that does not tell capital letters from small ones too.
    """
    shared = Counter(summary.name.casefold() for summary in summaries)
    return [
        summary.short_name
        if len(summary.name) > LONGEST_NAME or shared[summary.name.casefold()] > 1
        else summary.name
        for summary in summaries
    ]


def _of_set(runs: RunSet) -> list[RunSummary]:
    if not runs.by_fold:
        return [RunSummary(runs, None, runs.trials)]
    by_fold: dict[int | None, list[Trial]] = {}
    for trial in runs.trials:
        by_fold.setdefault(trial.fold, []).append(trial)
    return [RunSummary(runs, fold, tuple(trials)) for fold, trials in by_fold.items()]


class _Labels:
    """Names of the columns; a test fold and a seed only where they tell columns apart."""

    def __init__(self, plan: Plan) -> None:
        self._twice = twice_validated(plan.trials)
        self._repeated = repeated(plan)

    def column(self, summary: RunSummary, trial: Trial) -> str:
        heads = trial.configuration.parameters.get(HEADS)
        label = f"Fold {trial.fold}" if summary.fold is None else f"Head {text(heads)}"
        if trial.fold in self._twice:
            label += f" Test {text(trial.test_fold)}"
        return f"{label} Seed {trial.seed}" if self._repeated else label


def _write_index(
    folder: TableFolder, plan: Plan, summaries: Sequence[RunSummary], names: Sequence[str]
) -> None:
    """Which settings belong to which file; empty where a table's columns differ in one."""

    def row(summary: RunSummary, name: str) -> list[Cell]:
        parameters = summary.trials[0].configuration.parameters
        spread = {HEADS} if summary.runs.by_fold else set()
        cells = [None if path in spread else parameters.get(path) for path in plan.varying]
        return [name, summary.runs.model, summary.fold, *cells]

    rows = (row(summary, name) for summary, name in zip(summaries, names, strict=True))
    folder.write(INDEX, ["file", "model", "fold", *plan.varying], rows)
