"""ConfigurationScores: one metric of each configuration over its folds, ranked."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.outcomes import score_of
from orchestrator.records import TrialRecord
from orchestrator.statistics import standard_deviation
from orchestrator.trials import Configuration, Plan, Trial


@dataclass(frozen=True)
class FoldScore:
    """One finished trial's value of a metric.

    Attributes:
        trial: of one fold and seed.
        value: None where the metric is not defined, e.g. AUROC with an absent class.
    """

    trial: Trial
    value: float | None


@dataclass(frozen=True)
class ConfigurationScores:
    """One metric of one configuration.

    Attributes:
        configuration: the point of the search space.
        folds: its finished trials in plan order.
        complete: every trial of it in the plan has finished.
    """

    configuration: Configuration
    folds: tuple[FoldScore, ...]
    complete: bool

    @property
    def values(self) -> list[float]:
        """The values that there are, in plan order."""
        return [fold.value for fold in self.folds if fold.value is not None]

    @property
    def mean(self) -> float | None:
        """Arithmetic mean over the values that there are."""
        return _mean(self.values)

    @property
    def std(self) -> float | None:
        """Standard deviation over the values that there are, ddof 0: 0.0 for a single one."""
        return standard_deviation(self.values, ddof=0)

    @property
    def rankable(self) -> bool:
        """Every fold has finished and has a value."""
        return self.complete and len(self.values) == len(self.folds)


@dataclass(frozen=True)
class Best:
    """The best configuration.

    Attributes:
        configuration: the point of the search space.
        metric: what it is the best by, e.g. `val_accuracy`.
        mean: over its folds (and seeds).
        std: likewise, ddof 0.
        folds: the value of each trial in plan order.
    """

    configuration: Configuration
    metric: str
    mean: float
    std: float
    folds: tuple[FoldScore, ...]


def metric_of(record: TrialRecord, metric: str) -> float | None:
    """A record's value of a metric by its full name, e.g. `val_f1`; None where not defined."""
    split, _, score = metric.partition("_")
    result = record.val if split == "val" else record.test
    return None if result is None else score_of(result.scores, score)


def configuration_scores(
    plan: Plan, values: Mapping[str, float | None]
) -> tuple[ConfigurationScores, ...]:
    """The scores of every configuration in plan order.

    Args:
        plan: every trial.
        values: one metric of each finished trial, by its identity.
    """
    return tuple(scores_of(of_one, values) for of_one in plan.trials_of.values())


def scores_of(trials: Sequence[Trial], values: Mapping[str, float | None]) -> ConfigurationScores:
    """The scores of the configuration that has these trials, `values` as above."""
    return ConfigurationScores(
        configuration=trials[0].configuration,
        folds=tuple(FoldScore(t, values[t.id]) for t in trials if t.id in values),
        complete=all(t.id in values for t in trials),
    )


def ranks(scores: Sequence[ConfigurationScores], mode: str) -> list[int | None]:
    """Ranks by the mean: 1 is best, equal means share the lowest rank (method 'min').

    None for a configuration that is not rankable: it would be compared on other folds.

    Args:
        scores: of one metric.
        mode: `max` or `min`, whichever is better.
    """
    keys = [sort_key(one.mean, mode) if one.rankable else None for one in scores]
    ordered = sorted(key for key in keys if key is not None)
    return [None if key is None else 1 + bisect_left(ordered, key) for key in keys]


def best_configuration(
    plan: Plan,
    values: Mapping[str, float | None],
    model: str | None = None,
) -> Best | None:
    """The configuration with the best mean of the plan's metric; ties go by plan order.

    Only configurations with every fold finished count; None while there are none. A fold in
    which the metric is not defined lacks it for every configuration, so it is left out.

    Args:
        plan: every trial, the metric and its mode.
        values: the plan's metric of each finished trial, by its identity.
        model: choose among the configurations of this model only; None for all.
    """
    candidates = [
        (mean, one)
        for one in configuration_scores(plan, values)
        if model in (None, one.configuration.model.name)
        and one.complete
        and (mean := one.mean) is not None
    ]
    if not candidates:
        return None
    mean, best = min(candidates, key=lambda candidate: sort_key(candidate[0], plan.mode))
    return Best(best.configuration, plan.metric, mean, best.std or 0.0, best.folds)


def sort_key(mean: float | None, mode: str) -> float:
    """What sorts means from the best to the worst, no mean last.

    >>> sort_key((0.15 + 0.65) / 2, "min") == sort_key((0.1 + 0.7) / 2, "min")
    True
    """
    if mean is None:
        return math.inf
    # Means that are equal on paper differ in their last bits.
    return round(mean if mode == "min" else -mean, 12)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
