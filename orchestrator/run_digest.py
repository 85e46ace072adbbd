"""RunDigest: what the pictures need of a run directory, the records of the best ones included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.configuration_labels import configuration_names
from orchestrator.configuration_scores import (
    ConfigurationScores,
    configuration_scores,
    sort_key,
)
from orchestrator.outcomes import Results
from orchestrator.records import EpochRow, SplitResult, TrialRecord
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

    @property
    def trained(self) -> bool:
        """Whether it goes through epochs, so that there are curves to draw."""
        return self.runs[0].configuration.train is not None


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
        self._mode = plan.mode
        self._place = {c.id: i for i, c in enumerate(plan.configurations)}

    def key(self, scores: ConfigurationScores) -> tuple[float, ...]:
        """What to sort by; as in `best_configuration`, ties go by plan order."""
        finished = 0 if scores.complete else len(scores.folds)
        value = sort_key(scores.mean, self._mode)
        place = self._place[scores.configuration.id]
        # A configuration with more folds finished says more than one that is better on fewer.
        return (not scores.complete, -finished, value, place)


def read_digest(results: Results) -> RunDigest:
    """Rank by the results; of the records read those of the configurations that are kept.

    Raises:
        RunDirectoryError: a record is of another format version, or not readable.
    """
    plan = results.plan
    tested = {outcome.trial.id for outcome in results.finished if outcome.test is not None}
    values = results.values(plan.test_metric)
    scores = configuration_scores(plan, results.values(plan.metric))
    tests = configuration_scores(plan, {trial: values[trial] for trial in tested})
    by_model: dict[str, list[_Scored]] = {}
    for one, of_test in zip(scores, tests, strict=True):
        if one.folds:
            by_model.setdefault(one.configuration.model.name, []).append((one, of_test))
    models = (_read_model(results, name, scored) for name, scored in by_model.items())
    return RunDigest(plan, scores, tests, tuple(model for model in models if model.runs))


_Scored = tuple[ConfigurationScores, ConfigurationScores]


def _read_model(results: Results, name: str, scored: Sequence[_Scored]) -> ModelRuns:
    ranking = Ranking(results.plan)
    best = sorted(scored, key=lambda one: ranking.key(one[0]))[:KEPT]
    read = [_read_run(results, *one, answers=i == 0) for i, one in enumerate(best)]
    return ModelRuns(name, [run for run in read if run.curves], len(scored))


def _read_run(
    results: Results, scores: ConfigurationScores, tests: ConfigurationScores, *, answers: bool
) -> ConfigurationRun:
    found = [(fold.trial, results.directory.record(fold.trial)) for fold in scores.folds]
    # Of a run directory that is being written to, or damaged, since it was ranked.
    records = [(trial, record) for trial, record in found if record is not None]
    answered = records if answers else []
    return ConfigurationRun(
        configuration=scores.configuration,
        scores=scores,
        test_scores=tests,
        curves=tuple(_curves(trial, record) for trial, record in records),
        val=tuple(_answers(trial, r.val) for trial, r in answered if r.val is not None),
        test=tuple(_answers(trial, r.test) for trial, r in answered if r.test is not None),
    )


def _curves(trial: Trial, record: TrialRecord) -> EpochCurves:
    rows = record.epochs
    return EpochCurves(
        trial=trial,
        clips=(_clips(record.val), _clips(record.test)),
        chosen=record.epoch,
        epochs=np.array([row.epoch for row in rows]),
        losses=_matrix((_losses(row) for row in rows), len(rows)),
        accuracies=_matrix((_accuracies(row) for row in rows), len(rows)),
    )


def _clips(result: SplitResult | None) -> int:
    return 0 if result is None else len(result.predictions.clips)


_Values = tuple[float, float | None, float | None]


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
