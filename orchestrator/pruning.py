"""Pruning: configurations that are given up early, by what the same folds say of others.

Two configurations are only ever compared on equal folds and after equally many epochs: a mean over
folds 2 and 3 says nothing beside one over 4 and 5, which is what a scheduler that takes trials one
by one would compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import groupby

from orchestrator.configuration_scores import ConfigurationScores, configuration_scores, sort_key
from orchestrator.records import EpochRow
from orchestrator.specification import HalvingPruner, WilcoxonPruner
from orchestrator.trials import Plan, Trial
from orchestrator.verdict import folds_of

Pruner = HalvingPruner | WilcoxonPruner


@dataclass(frozen=True)
class Stage:
    """What is to run before configurations can be compared again.

    Attributes:
        trials: of the configurations that are left, on the folds that they are compared on.
        epochs: after which they are; None for the last one of each.
        pruned: trials that are not run any more, by their identity.
    """

    trials: tuple[Trial, ...]
    epochs: int | None
    pruned: frozenset[str]


@dataclass(frozen=True)
class Known:
    """What the trials of a plan have given so far, by their identity.

    Attributes:
        values: the plan's metric of each finished trial.
        settled: trials that have finished or failed.
        epochs: of trials that have finished, pause or have failed after a pause.
    """

    values: Mapping[str, float | None]
    settled: Set[str]
    epochs: Mapping[str, Sequence[EpochRow]] = field(default_factory=dict)

    def waits(self, trial: Trial, epochs: int | None) -> bool:
        """Whether it is still to come to so many epochs, or to its end."""
        return trial.id not in self.settled and not self._has(trial, epochs)

    def values_after(self, epochs: int | None, plan: Plan) -> Mapping[str, float | None]:
        """What each trial would score had its training ended there."""
        if epochs is None:
            return self.values
        return {
            trial.id: _value(self.epochs[trial.id][:epochs], trial, plan.metric)
            for trial in plan.trials
            if trial.id in self.values or self._has(trial, epochs)
        }

    def _has(self, trial: Trial, epochs: int | None) -> bool:
        return epochs is not None and len(self.epochs.get(trial.id, ())) >= epochs


@dataclass(frozen=True)
class _Rung:
    """How far trials are before they are compared: all epochs where the number is None."""

    folds: int
    epochs: int | None


def stage(plan: Plan, pruner: Pruner, known: Known) -> Stage:
    """The folds to run next; none that is not settled where the sweep is at its end.

    It is found anew from the first fold on, by the scores alone: in whatever order trials finish,
    and however often a sweep is continued, the same are pruned.

    Args:
        plan: its folds come in its order, all seeds of a fold together.
        pruner: when to compare and what to give up.
        known: of the trials so far.
    """
    folds = [tuple(group) for _, group in groupby(plan.trials, lambda t: (t.test_fold, t.fold))]
    left = set(plan.trials_of)
    *rungs, whole = _rungs(pruner, plan, len(folds))
    for rung in [*rungs, whole]:
        of_rung = [trial for fold in folds[: rung.folds] for trial in fold]
        trials = tuple(trial for trial in of_rung if trial.configuration.id in left)
        if rung is whole or any(known.waits(trial, rung.epochs) for trial in trials):
            break
        scores = _scores(plan, trials, known.values_after(rung.epochs, plan))
        # Where all have failed, or no fold so far defines the metric, nothing is known of any.
        if scores:
            left = set(_kept(pruner, scores, plan.mode))
    return Stage(trials, rung.epochs, _pruned(plan, left, known.settled))


def _rungs(pruner: Pruner, plan: Plan, folds: int) -> list[_Rung]:
    """When configurations are compared: by more and more epochs, then folds; at last the end."""
    first, most = min(pruner.folds, folds), max(c.epochs for c in plan.configurations)
    growth = 2 if isinstance(pruner, WilcoxonPruner) else pruner.factor
    by_epochs = [_Rung(first, epochs) for epochs in _growing(pruner.epochs or most, growth, most)]
    every_fold = isinstance(pruner, WilcoxonPruner)
    counts = range(first, folds) if every_fold else _growing(first, growth, folds)
    return [*by_epochs, *(_Rung(count, None) for count in counts), _Rung(folds, None)]


def _growing(first: int, factor: int, end: int) -> Sequence[int]:
    """`first`, and each time so many times more, below `end`."""
    found = []
    while first < end:
        found.append(first)
        first *= factor
    return found


def _value(rows: Sequence[EpochRow], trial: Trial, metric: str) -> float | None:
    """At the epoch that `train.select` would name among these."""
    train = trial.configuration.train
    if train is None or train.select == "last":
        chosen = rows[-1]
    else:
        chosen = min(rows, key=lambda row: (-(row.val_accuracy or 0.0), row.val_loss or 0.0))
    value: float | None = getattr(chosen, metric)
    return value


def _scores(
    plan: Plan, trials: Sequence[Trial], values: Mapping[str, float | None]
) -> list[ConfigurationScores]:
    """Of the configurations that have finished these folds.

    One on which the metric is not defined lacks it for every configuration.
    """
    found = configuration_scores(plan.of(trials), values)
    return [one for one in found if one.complete and one.mean is not None]


def _kept(pruner: Pruner, scores: Sequence[ConfigurationScores], mode: str) -> list[str]:
    """The identities of those that go on, in plan order."""
    if isinstance(pruner, WilcoxonPruner):
        return _not_worse(pruner, scores, mode)
    keys = [sort_key(one.mean, mode) for one in scores]
    last = sorted(keys)[-(-len(scores) // pruner.factor) - 1]
    # None that equals the last one to go on is given up for its place in the plan.
    return [one.configuration.id for one, key in zip(scores, keys, strict=True) if key <= last]


def _not_worse(
    pruner: WilcoxonPruner, scores: Sequence[ConfigurationScores], mode: str
) -> list[str]:
    """Those that are not shown to be worse than the best, fold by fold (Wilcoxon 1945).

    Seeds on a fold are averaged first: they are further trainings, not further folds.
    """
    from scipy.stats import wilcoxon

    best = folds_of(min(scores, key=lambda one: sort_key(one.mean, mode)))
    sign = 1.0 if mode == "max" else -1.0
    kept = []
    for one in scores:
        other = folds_of(one)
        # Equal differences of fractions differ in their last bits.
        differences = [round(sign * (best[fold] - other[fold]), 12) for fold in best]
        # Equal on every fold there is nothing to test.
        equal = not any(differences)
        if equal or wilcoxon(differences, alternative="greater").pvalue > pruner.p:
            kept.append(one.configuration.id)
    return kept


def _pruned(plan: Plan, alive: Set[str], settled: Set[str]) -> frozenset[str]:
    """What has failed has been run: it counts as failed."""
    return frozenset(
        trial.id
        for trial in plan.trials
        if trial.configuration.id not in alive and trial.id not in settled
    )
