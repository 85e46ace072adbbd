"""Outcome: where each trial of a plan stands, and its scores without its predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.errors import RunDirectoryError
from orchestrator.records import (
    EpochRow,
    ParameterCount,
    Scores,
    Status,
    TrialFailure,
    TrialPause,
    TrialRecord,
)
from orchestrator.run_directory import RunDirectory
from orchestrator.run_sets import sets_by_configuration
from orchestrator.trials import Plan, Trial


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tables say of one trial; all of them fit in memory together.

    Attributes:
        trial: of the plan.
        status: where it stands.
        epoch: the epoch that counts; None, like the rest, for an unfinished trial.
        val: at that epoch.
        test: likewise; None too without a test fold.
        parameters: of the model.
        average_val_accuracy: running mean over the finished trials of its run set so far.
        error: of a failed trial.
    """

    trial: Trial
    status: Status
    epoch: EpochRow | None = None
    val: Scores | None = None
    test: Scores | None = None
    parameters: ParameterCount | None = None
    average_val_accuracy: float | None = None
    error: str = ""

    def metric(self, name: str) -> float | None:
        """A metric by its full name, e.g. `val_f1`; None where there is none."""
        split, _, score = name.partition("_")
        return score_of(self.val if split == "val" else self.test, score)

    @property
    def train_accuracy(self) -> float | None:
        """Running value over the epoch that counts."""
        return self.epoch.train_accuracy if self.epoch else None

    @property
    def train_loss(self) -> float | None:
        """Likewise."""
        return self.epoch.train_loss if self.epoch else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One trial's outcome together with the record or failure that it was read from.

    Attributes:
        pause: how far a trial came that was given up after some epochs.
    """

    outcome: Outcome
    record: TrialRecord | None = None
    failure: TrialFailure | None = None
    pause: TrialPause | None = None

    @property
    def epochs(self) -> Sequence[EpochRow]:
        """Every epoch of a trial that has finished or was given up."""
        source = self.record or self.pause
        return source.epochs if source else ()


@dataclass(frozen=True)
class Results:
    """A run directory after one pass over its records: what tables, plots and report start from.

    Attributes:
        directory: the reading side.
        plan: every trial.
        outcomes: of every trial by its identity, in plan order.
    """

    directory: RunDirectory
    plan: Plan
    outcomes: Mapping[str, Outcome]

    @classmethod
    def read(cls, run_dir: Path) -> Results:
        """Read every record once.

        Raises:
            RunDirectoryError: there is no plan, or a file is of another format version.
        """
        directory = RunDirectory(run_dir)
        plan = plan_of(directory)
        entries = read_entries(directory, plan)
        outcomes = {entry.outcome.trial.id: entry.outcome for entry in entries}
        return cls(directory, plan, outcomes)

    @cached_property
    def finished(self) -> tuple[Outcome, ...]:
        """Of the finished trials, in plan order."""
        return self._with(Status.FINISHED)

    @cached_property
    def failed(self) -> tuple[Outcome, ...]:
        """Of those that have failed and not finished since, in plan order."""
        return self._with(Status.FAILED)

    @cached_property
    def pruned(self) -> tuple[Outcome, ...]:
        """Of those that were given up, in plan order."""
        return self._with(Status.PRUNED)

    def values(self, metric: str) -> dict[str, float | None]:
        """A metric of the finished trials by identity, as `best_configuration` takes it."""
        return {outcome.trial.id: outcome.metric(metric) for outcome in self.finished}

    def _with(self, status: Status) -> tuple[Outcome, ...]:
        return tuple(one for one in self.outcomes.values() if one.status is status)


def plan_of(directory: RunDirectory) -> Plan:
    """The plan of a run directory.

    Raises:
        RunDirectoryError: there is none, or it is damaged or of another format version.
    """
    plan = directory.read_plan()
    if plan is None:
        raise RunDirectoryError(f"{directory.path}: no run directory: it has no plan.json")
    return plan


def score_of(scores: Scores | None, name: str) -> float | None:
    """One of the scores by its name; None where there are none or it is not defined."""
    value: float | None = None if scores is None else getattr(scores, name)
    return value


def read_entries(directory: RunDirectory, plan: Plan) -> Iterator[Entry]:
    """Every trial of the plan in plan order, outer ones last, one record in memory at a time.

    Raises:
        RunDirectoryError: a record is of another format version, or not readable.
    """
    averages = RunningAverages(plan)
    for trial in plan.every:
        record = directory.record(trial)
        if record is not None:
            yield Entry(_finished(trial, record, averages), record)
            continue
        if trial.id in plan.pruned:
            # It may have failed in an earlier call, before what made it fail was mended.
            yield Entry(Outcome(trial, Status.PRUNED), pause=directory.pause(trial))
        elif (failure := directory.failure(trial)) is not None:
            yield Entry(Outcome(trial, Status.FAILED, error=failure.error), failure=failure)
        else:
            yield Entry(Outcome(trial, Status.PENDING))


class RunningAverages:
    """The first report's running mean of the validation accuracy, one for each run set."""

    def __init__(self, plan: Plan) -> None:
        """Start with no run."""
        self._set_of = sets_by_configuration(plan)
        self._seen: dict[int, list[float]] = {}

    def add(self, trial: Trial, accuracy: float) -> float:
        """Take the next finished trial in plan order; the mean of its run set, it included."""
        seen = self._seen.setdefault(self._set_of[trial.configuration.id], [])
        seen.append(accuracy)
        return math.fsum(seen) / len(seen)


def _finished(trial: Trial, record: TrialRecord, averages: RunningAverages) -> Outcome:
    val = None if record.val is None else record.val.scores
    return Outcome(
        trial=trial,
        status=Status.FINISHED,
        epoch=next(row for row in record.epochs if row.epoch == record.epoch),
        val=val,
        test=None if record.test is None else record.test.scores,
        parameters=record.parameters,
        average_val_accuracy=None if val is None else averages.add(trial, val.accuracy),
    )
