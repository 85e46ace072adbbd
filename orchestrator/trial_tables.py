"""The tables with rows for each trial, written side by side in one pass over the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from features.formulas import harmless
from orchestrator.csv_files import Cell, TableFolder
from orchestrator.outcomes import Entry, Outcome, score_of
from orchestrator.records import SplitResult
from orchestrator.trials import Configuration, Plan, Trial

HYPERPARAMETERS = {
    "optimizer": "train.optimizer.name",
    "lr": "train.optimizer.lr",
    "momentum": "train.optimizer.momentum",
    "nesterov": "train.optimizer.nesterov",
    "weight_decay": "train.optimizer.weight_decay",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "init": "model.init",
}
"""The reports' hyperparameters and where they stand; empty where an optimizer lacks one."""

SCORES = ("accuracy", "loss", "precision", "recall", "f1", "auroc")
WEIGHTED = ("precision_weighted", "recall_weighted", "f1_weighted")

Row = Iterable[Cell]


@dataclass(frozen=True)
class TrialTable:
    """A table with rows for each trial.

    Attributes:
        name: of the file.
        header: names of the columns.
        rows: what one trial contributes.
    """

    name: str
    header: tuple[str, ...]
    rows: Callable[[Entry], Iterable[Row]]


def write_trial_tables(
    folder: TableFolder, plan: Plan, entries: Iterable[Entry]
) -> dict[str, Outcome]:
    """Write every table that has rows for each trial.

    Args:
        folder: of the tables.
        plan: every trial.
        entries: of every trial in plan order; read once.

    Returns:
        The outcome of every trial by its identity, in plan order.

    Raises:
        RunDirectoryError: a record cannot be read or a table cannot be written.
    """
    outcomes = {}
    with ExitStack() as stack:
        open_tables = [
            (table, stack.enter_context(folder.open(table.name, table.header)))
            for table in trial_tables(plan)
        ]
        for entry in entries:
            outcomes[entry.outcome.trial.id] = entry.outcome
            for table, file in open_tables:
                for row in table.rows(entry):
                    file.row(row)
    return outcomes


def trial_tables(plan: Plan) -> tuple[TrialTable, ...]:
    """The tables of a plan."""
    return (
        *(_trials(plan), _epochs(), _hyperparameters(plan)),
        *(_predictions(plan), _confusions(plan), _timings()),
    )


def hyperparameters(configuration: Configuration) -> list[Cell]:
    """The values of `HYPERPARAMETERS`."""
    return [configuration.parameters.get(path) for path in HYPERPARAMETERS.values()]


def _place(trial: Trial) -> list[Cell]:
    return [trial.configuration.id, trial.test_fold, trial.fold, trial.seed]


def _varying(plan: Plan, trial: Trial) -> list[Cell]:
    return [trial.configuration.parameters.get(path) for path in plan.varying]


def _trials(plan: Plan) -> TrialTable:
    def rows(entry: Entry) -> Iterator[Row]:
        outcome = entry.outcome
        trial = outcome.trial
        yield (
            trial.id,
            *_place(trial),
            *_varying(plan, trial),
            outcome.status.value,
            outcome.epoch.epoch if outcome.epoch else None,
            outcome.train_accuracy,
            outcome.train_loss,
            *(score_of(outcome.val, name) for name in SCORES),
            *(score_of(outcome.test, name) for name in SCORES),
            outcome.average_val_accuracy,
            outcome.parameters.total if outcome.parameters else None,
            harmless(outcome.error),
            *(score_of(outcome.val, name) for name in WEIGHTED),
            *(score_of(outcome.test, name) for name in WEIGHTED),
        )

    header = (
        *("trial", "configuration", "test_fold", "fold", "seed"),
        *plan.varying,
        *("status", "epoch", "train_accuracy", "train_loss"),
        *(f"val_{name}" for name in SCORES),
        *(f"test_{name}" for name in SCORES),
        *("average_val_accuracy", "parameters", "error"),
        *(f"val_{name}" for name in WEIGHTED),
        *(f"test_{name}" for name in WEIGHTED),
    )
    return TrialTable("trials.csv", header, rows)


def _epochs() -> TrialTable:
    def rows(entry: Entry) -> Iterator[Row]:
        trial = entry.outcome.trial
        for epoch in entry.epochs:
            yield (
                trial.id,
                *_place(trial),
                epoch.epoch,
                epoch.lr,
                epoch.train_loss,
                epoch.train_accuracy,
                epoch.val_loss,
                epoch.val_accuracy,
                epoch.test_loss,
                epoch.test_accuracy,
            )

    header = (
        *("trial", "configuration", "test_fold", "fold", "seed", "epoch", "lr"),
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *("test_loss", "test_accuracy"),
    )
    return TrialTable("epochs.csv", header, rows)


def _hyperparameters(plan: Plan) -> TrialTable:
    def rows(entry: Entry) -> Iterator[Row]:
        outcome = entry.outcome
        trial = outcome.trial
        yield (
            *_place(trial),
            *_varying(plan, trial),
            *hyperparameters(trial.configuration),
            outcome.epoch.epoch if outcome.epoch else None,
            outcome.train_accuracy,
            outcome.train_loss,
            score_of(outcome.val, "accuracy"),
            score_of(outcome.val, "loss"),
            score_of(outcome.test, "accuracy"),
            score_of(outcome.test, "loss"),
        )

    header = (
        *("configuration", "test_fold", "fold", "seed"),
        *plan.varying,
        *HYPERPARAMETERS,
        *("epoch", "train_accuracy", "train_loss", "val_accuracy", "val_loss"),
        *("test_accuracy", "test_loss"),
    )
    return TrialTable("hyperparameters.csv", header, rows)


def _predictions(plan: Plan) -> TrialTable:
    def rows(entry: Entry) -> Iterator[Row]:
        for split, result in _splits(entry):
            yield from prediction_rows(plan, entry.outcome.trial.id, split, result)

    return TrialTable("predictions.csv", prediction_header(plan), rows)


def prediction_header(plan: Plan) -> tuple[str, ...]:
    """The columns of `predictions.csv`."""
    probabilities = (f"prob_{name}" for name in plan.classes)
    return ("trial", "split", "clip", "label", "predicted", *probabilities)


def prediction_rows(plan: Plan, trial: str, split: str, result: SplitResult) -> Iterator[Row]:
    """The rows of one split of a trial, by clip."""
    clips, given = plan.clips, result.predictions
    for i in sorted(range(len(given.clips)), key=lambda i: clips[given.clips[i]].path):
        yield (
            trial,
            split,
            clips[given.clips[i]].path,
            plan.classes[given.labels[i]],
            plan.classes[given.predicted[i]],
            *given.probabilities[i],
        )


def _splits(entry: Entry) -> Iterator[tuple[str, SplitResult]]:
    """The evaluated splits of a finished trial, validation first."""
    record = entry.record
    if record is not None:
        if record.val is not None:
            yield "val", record.val
        if record.test is not None:
            yield "test", record.test


def _confusions(plan: Plan) -> TrialTable:
    """The confusion matrices, a row for each cell that is not zero."""

    def split_rows(trial: str, split: str, result: SplitResult) -> Iterator[Row]:
        given = result.predictions
        counts = Counter(zip(given.labels, given.predicted, strict=True))
        for (label, predicted), clips in sorted(counts.items()):
            yield trial, split, plan.classes[label], plan.classes[predicted], clips

    def rows(entry: Entry) -> Iterator[Row]:
        for split, result in _splits(entry):
            yield from split_rows(entry.outcome.trial.id, split, result)

    header = ("trial", "split", "label", "predicted", "clips")
    return TrialTable("confusion_matrices.csv", header, rows)


def _timings() -> TrialTable:
    def rows(entry: Entry) -> Iterator[Row]:
        ended = entry.record or entry.failure
        if ended is not None:
            timing = ended.timing
            yield (
                ended.trial,
                timing.started,
                timing.wall_seconds,
                timing.train_seconds,
                timing.attempts,
                timing.host,
                timing.device,
            )

    header = ("trial", "started", "wall_seconds", "train_seconds", "attempts", "host", "device")
    return TrialTable("timings.csv", header, rows)
