"""The outer results of a nested cross-validation: what was chosen, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.configuration_scores import ConfigurationScores, configuration_scores
from orchestrator.csv_files import Cell, TableFolder
from orchestrator.outcomes import Outcome, Results, score_of
from orchestrator.records import Status
from orchestrator.statistics import standard_deviation
from orchestrator.trial_tables import SCORES
from orchestrator.trials import Plan, Trial

NAME = "nested.csv"


@dataclass(frozen=True)
class OuterResult:
    """One test fold with one seed.

    Attributes:
        outcome: of the chosen configuration, trained on all the other folds.
        inner: its scores by the plan's metric over the inner folds, which it was chosen by.
        candidates: configurations that it was the best of, those with every inner fold finished.
    """

    outcome: Outcome
    inner: ConfigurationScores
    candidates: int

    @property
    def trial(self) -> Trial:
        """The outer trial."""
        return self.outcome.trial

    @property
    def inner_folds(self) -> int:
        """How many folds the choice was made on, whatever the number of seeds."""
        return len({fold.trial.fold for fold in self.inner.folds})


@dataclass(frozen=True)
class Estimate:
    """What the whole procedure, choice included, is worth on clips that it has not seen.

    Attributes:
        metric: its full name, e.g. `test_accuracy`.
        values: one a finished outer trial.
    """

    metric: str
    values: tuple[float, ...]

    @classmethod
    def of(cls, metric: str, found: Iterable[float | None]) -> Estimate | None:
        """From the outer trials' scores, None for one without; None while there is none."""
        values = tuple(value for value in found if value is not None)
        return cls(metric, values) if values else None

    @property
    def mean(self) -> float:
        """Over the test folds (and seeds)."""
        return math.fsum(self.values) / len(self.values)

    @property
    def std(self) -> float:
        """Likewise, ddof 0."""
        return standard_deviation(self.values, ddof=0) or 0.0


def outer_results(plan: Plan, outcomes: Mapping[str, Outcome]) -> tuple[OuterResult, ...]:
    """Every outer trial of the plan, in its order."""
    values = {
        trial.id: outcomes[trial.id].metric(plan.metric)
        for trial in plan.trials
        if outcomes[trial.id].status is Status.FINISHED
    }
    inner: dict[int | None, tuple[ConfigurationScores, ...]] = {}
    for fold in dict.fromkeys(trial.test_fold for trial in plan.outer):
        own = plan.of(trial for trial in plan.trials if trial.test_fold == fold)
        inner[fold] = configuration_scores(own, values)
    return tuple(_result(outcomes[t.id], inner[t.test_fold]) for t in plan.outer)


def _result(outcome: Outcome, scores: Sequence[ConfigurationScores]) -> OuterResult:
    own = outcome.trial.configuration.id
    chosen = next(one for one in scores if one.configuration.id == own)
    return OuterResult(outcome, chosen, sum(one.complete for one in scores))


def estimate(results: Results) -> Estimate | None:
    """The mean test score of the outer trials; None while none has finished."""
    metric = results.plan.test_metric
    return Estimate.of(metric, (results.outcomes[t.id].metric(metric) for t in results.plan.outer))


def write_outer_results(folder: TableFolder, plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    """Write `nested.csv`, one row a test fold and seed, where there are any.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    if not plan.outer:
        return
    header = (
        *("test_fold", "seed", "configuration"),
        *(f"param_{path}" for path in plan.varying),
        *("status", "candidates", "inner_folds"),
        *(f"inner_mean_{plan.metric}", f"inner_std_{plan.metric}"),
        *("epoch", "train_accuracy", "train_loss"),
        *(f"test_{name}" for name in SCORES),
    )
    folder.write(NAME, header, _rows(plan, outer_results(plan, outcomes)))


def _rows(plan: Plan, results: Iterable[OuterResult]) -> Iterator[list[Cell]]:
    for result in results:
        outcome, trial = result.outcome, result.trial
        parameters = trial.configuration.parameters
        yield [
            *(trial.test_fold, trial.seed, trial.configuration.id),
            *(parameters.get(path) for path in plan.varying),
            *(outcome.status.value, result.candidates, result.inner_folds),
            *(result.inner.mean, result.inner.std),
            outcome.epoch.epoch if outcome.epoch else None,
            *(outcome.train_accuracy, outcome.train_loss),
            *(score_of(outcome.test, name) for name in SCORES),
        ]
