"""RunDigest: what the pictures need of a run directory, read in one pass with bounded memory."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.configuration_labels import configuration_names
from orchestrator.configuration_scores import (
    ConfigurationScores,
    FoldScore,
    configuration_scores,
    metric_of,
)
from orchestrator.records import EpochRow, SplitResult, TrialRecord
from orchestrator.run_directory import RunDirectory
from orchestrator.trials import Configuration, Plan, Trial

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Split = Literal["train", "val", "test"]
Quantity = Literal["loss", "accuracy"]

KEPT = 60
"""Configurations of a model whose curves are kept; the best ones."""


@dataclass(frozen=True)
class EpochCurves:
    """What one trial's epochs were like.

    Attributes:
        trial: of the plan.
        clips: of the validation and of the test split.
        chosen: the epoch whose metrics count, as `train.select` says.
        epochs: their numbers, from 0.
        losses: training, validation and test loss per clip, `[3, epochs]`; NaN where the test
            split was not looked at.
        accuracies: likewise, fractions.
    """

    trial: Trial
    clips: tuple[int, int]
    chosen: int
    epochs: Integers
    losses: Floats
    accuracies: Floats

    def curve(self, split: Split, quantity: Quantity) -> Floats:
        """One value an epoch."""
        values = self.losses if quantity == "loss" else self.accuracies
        row: Floats = values[("train", "val", "test").index(split)]
        return row

    def at_chosen(self, split: Split, quantity: Quantity) -> float:
        """The value at the epoch that counts."""
        return float(self.curve(split, quantity)[self.epochs == self.chosen][0])


@dataclass(frozen=True)
class Answers:
    """A trained model's answers on one split.

    Attributes:
        trial: of the plan.
        clips: row indices `[n]`.
        labels: true class indices `[n]`.
        predicted: predicted ones `[n]`.
        probabilities: `[n, k]`.
    """

    trial: Trial
    clips: Integers
    labels: Integers
    predicted: Integers
    probabilities: Floats


@dataclass(frozen=True)
class ConfigurationRun:
    """The finished trials of one configuration.

    Attributes:
        configuration: the point of the search space.
        scores: the plan's metric.
        test_scores: the same on the test split; without folds where there is none.
        curves: of each trial in plan order.
        val: answers on the validation split of each trial; empty unless it is the best one.
        test: likewise; empty too without a test fold.
    """

    configuration: Configuration
    scores: ConfigurationScores
    test_scores: ConfigurationScores
    curves: tuple[EpochCurves, ...]
    val: tuple[Answers, ...] = ()
    test: tuple[Answers, ...] = ()


@dataclass
class ModelRuns:
    """The configurations of one model that have a finished trial.

    Attributes:
        name: of the model.
        runs: the best ones first, at most `KEPT`; the first one keeps its answers. Those with
            every fold finished come before the others, equal ones in plan order.
        count: how many there are, the ones left out included.
    """

    name: str
    runs: list[ConfigurationRun] = field(default_factory=list)
    count: int = 0


@dataclass(frozen=True)
class RunDigest:
    """A run directory, digested.

    Attributes:
        plan: every trial.
        scores: the plan's metric of every configuration, in plan order.
        test_scores: the same on the test split, likewise; no choice is made by it.
        models: those that have a finished trial, in plan order.
    """

    plan: Plan
    scores: tuple[ConfigurationScores, ...]
    test_scores: tuple[ConfigurationScores, ...]
    models: tuple[ModelRuns, ...]

    @cached_property
    def names(self) -> dict[str, str]:
        """What each configuration is called, by identity."""
        return configuration_names(self.plan)

    @cached_property
    def short_names(self) -> dict[str, str]:
        """Likewise beside the name of its model."""
        return configuration_names(self.plan, with_model=False)

    @property
    def finished(self) -> int:
        """Number of finished trials."""
        return sum(len(one.folds) for one in self.scores)

    @property
    def ranked(self) -> list[ConfigurationScores]:
        """The configurations with a finished trial, the best one first."""
        order = Ranking(self.plan)
        return sorted((one for one in self.scores if one.folds), key=order.key)

    @property
    def runs(self) -> list[ConfigurationRun]:
        """The kept configurations of all models, the best one first."""
        order = Ranking(self.plan)
        return sorted(
            (run for model in self.models for run in model.runs),
            key=lambda run: order.key(run.scores),
        )


class Ranking:
    """The order of configurations from the best to the worst, incomplete ones last."""

    def __init__(self, plan: Plan) -> None:
        """Rank by the plan's metric and mode."""
        self._sign = 1.0 if plan.mode == "min" else -1.0
        self._place = {c.id: i for i, c in enumerate(plan.configurations)}

    def key(self, scores: ConfigurationScores) -> tuple[float, ...]:
        """What to sort by; as in `best_configuration`, ties go by plan order."""
        mean = scores.mean
        finished = 0 if scores.complete else len(scores.folds)
        value = float("inf") if mean is None else self._sign * mean
        place = self._place[scores.configuration.id]
        # A configuration with more folds finished says more than one that is better on fewer.
        return (not scores.complete, -finished, value, place)


def read_digest(directory: RunDirectory, plan: Plan) -> RunDigest:
    """Read every record once, configuration by configuration.

    Not in plan order, in which the configurations alternate from fold to fold: only so can the
    answers of all but the best be forgotten at once.

    Raises:
        RunDirectoryError: a record is of another format version, or not readable.
    """
    ranking = Ranking(plan)
    trials: dict[str, list[Trial]] = {}
    for trial in plan.trials:
        trials.setdefault(trial.configuration.id, []).append(trial)
    models: dict[str, ModelRuns] = {}
    values: dict[str, float | None] = {}
    tests: dict[str, float | None] = {}
    for of_one in trials.values():
        run = _read_run(directory, plan, of_one)
        if run is not None:
            values |= {fold.trial.id: fold.value for fold in run.scores.folds}
            tests |= {fold.trial.id: fold.value for fold in run.test_scores.folds}
            name = run.configuration.model.name
            _keep(models.setdefault(name, ModelRuns(name)), run, ranking)
    return RunDigest(
        plan,
        configuration_scores(plan, values),
        configuration_scores(plan, tests),
        tuple(models.values()),
    )


def _read_run(directory: RunDirectory, plan: Plan, trials: list[Trial]) -> ConfigurationRun | None:
    folds, test_folds, curves, val, test = [], [], [], [], []
    test_metric = f"test_{plan.metric.partition('_')[2]}"
    for trial in trials:
        record = directory.record(trial)
        if record is None:
            continue
        folds.append(FoldScore(trial, metric_of(record, plan.metric)))
        curves.append(_curves(trial, record))
        val.append(_answers(trial, record.val))
        if record.test is not None:
            test_folds.append(FoldScore(trial, metric_of(record, test_metric)))
            test.append(_answers(trial, record.test))
    if not folds:
        return None
    configuration = trials[0].configuration
    complete = len(folds) == len(trials)
    return ConfigurationRun(
        configuration=configuration,
        scores=ConfigurationScores(configuration, tuple(folds), complete),
        test_scores=ConfigurationScores(configuration, tuple(test_folds), complete),
        curves=tuple(curves),
        val=tuple(val),
        test=tuple(test),
    )


def _keep(model: ModelRuns, run: ConfigurationRun, ranking: Ranking) -> None:
    """Put a run at its place; only the first one keeps its answers, only the best stay."""
    model.count += 1
    insort(model.runs, run, key=lambda one: ranking.key(one.scores))
    for i in range(1, len(model.runs)):
        if model.runs[i].val:
            model.runs[i] = replace(model.runs[i], val=(), test=())
    del model.runs[KEPT:]


def _curves(trial: Trial, record: TrialRecord) -> EpochCurves:
    rows = record.epochs
    return EpochCurves(
        trial=trial,
        clips=(_clips(record.val), 0 if record.test is None else _clips(record.test)),
        chosen=record.epoch,
        epochs=np.array([row.epoch for row in rows]),
        losses=_matrix((_losses(row) for row in rows), len(rows)),
        accuracies=_matrix((_accuracies(row) for row in rows), len(rows)),
    )


def _clips(result: SplitResult) -> int:
    return len(result.predictions.clips)


_Values = tuple[float, float, float | None]


def _losses(row: EpochRow) -> _Values:
    return row.train_loss, row.val_loss, row.test_loss


def _accuracies(row: EpochRow) -> _Values:
    return row.train_accuracy, row.val_accuracy, row.test_accuracy


def _matrix(rows: Iterable[_Values], count: int) -> Floats:
    """Values as `[3, count]`; None becomes NaN."""
    return np.array(list(rows), dtype=np.float64).reshape(count, 3).T


def _answers(trial: Trial, result: SplitResult) -> Answers:
    given = result.predictions
    return Answers(
        trial=trial,
        clips=np.array(given.clips, dtype=np.int64),
        labels=np.array(given.labels, dtype=np.int64),
        predicted=np.array(given.predicted, dtype=np.int64),
        probabilities=np.array(given.probabilities, dtype=np.float64),
    )
