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
from orchestrator.trials import Configuration, Plan, Trial
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

    def lacks(self, trial: Trial, epochs: int | None) -> bool:
        """Whether a trial is still to come to so many epochs, or to its end."""
        return trial.id not in self.settled and not self._has(trial, epochs)

    def values_after(
        self, epochs: int | None, trials: Sequence[Trial], metric: str
    ) -> Mapping[str, float | None]:
        """What these trials would score had their training ended there."""
        if epochs is None:
            return self.values
        return {
            trial.id: _value(self.epochs[trial.id][:epochs], trial, metric)
            for trial in trials
            # One that early stopping has ended would be no other after more epochs.
            if trial.id in self.values or self._has(trial, epochs)
        }

    def _has(self, trial: Trial, epochs: int | None) -> bool:
        return epochs is not None and len(self.epochs.get(trial.id, ())) >= epochs


@dataclass(frozen=True)
class _Rung:
    """How far trials are before they are compared: all epochs where the number is None."""

    folds: int
    epochs: int | None

    def compares(self, configuration: Configuration) -> bool:
        """Whether a configuration has so many epochs; what is fitted in one go has none."""
        if self.epochs is None:
            return True
        return configuration.train is not None and configuration.epochs >= self.epochs


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
    left = plan.configurations
    for rung in _rungs(pruner, plan, len(folds)):
        compared = {one.id for one in left if rung.compares(one)}
        if len(compared) < 2:
            continue
        of_rung = (trial for fold in folds[: rung.folds] for trial in fold)
        trials = tuple(trial for trial in of_rung if trial.configuration.id in compared)
        if any(known.lacks(trial, rung.epochs) for trial in trials):
            return Stage(trials, rung.epochs, _pruned(plan, left, known.settled))
        scores = _scores(plan, trials, known.values_after(rung.epochs, trials, plan.metric))
        # Where all have failed, or no fold so far defines the metric, nothing is known of any.
        if scores:
            kept = set(_kept(pruner, scores, plan.mode))
            left = tuple(one for one in left if one.id in kept or one.id not in compared)
    going = {one.id for one in left}
    trials = tuple(trial for trial in plan.trials if trial.configuration.id in going)
    return Stage(trials, None, _pruned(plan, left, known.settled))


def doubts(plan: Plan, pruner: Pruner) -> list[str]:
    """Why a pruner will not do what it is there for, a line each."""
    folds = len({(trial.test_fold, trial.fold) for trial in plan.trials})
    most = max(one.epochs for one in plan.configurations)
    found = []
    if pruner.epochs is not None and pruner.epochs >= most:
        found.append(f"search.pruner.epochs: nothing is compared after {pruner.epochs} of {most}")
    if isinstance(pruner, WilcoxonPruner):
        first, last = min(pruner.folds, folds), folds - 1
        for count, when in ((last, ""), (first, " before the end of a training")):
            # The least that the test can give, where one is better on every fold.
            if 2.0**-count > pruner.p and (count == last or pruner.epochs is not None):
                found.append(
                    f"search.pruner: over {count} folds the test gives p of {2.0**-count:g} at"
                    f" best, above {pruner.p:g}: nothing will be given up{when}"
                )
                break
    return found


def _rungs(pruner: Pruner, plan: Plan, folds: int) -> list[_Rung]:
    """When configurations are compared: by more and more epochs, then by more and more folds."""
    first, most = min(pruner.folds, folds), max(one.epochs for one in plan.configurations)
    every_fold = isinstance(pruner, WilcoxonPruner)
    growth = 2 if isinstance(pruner, WilcoxonPruner) else pruner.factor
    counts = range(first, folds) if every_fold else _growing(first, growth, folds)
    by_folds = [_Rung(count, None) for count in counts]
    if pruner.epochs is None:
        return by_folds
    return [*(_Rung(first, epochs) for epochs in _growing(pruner.epochs, growth, most)), *by_folds]


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
    assert train is not None
    chosen = min(rows, key=_place) if train.select == "best" else rows[-1]
    value: float | None = getattr(chosen, metric)
    return value


def _place(row: EpochRow) -> tuple[float, float]:
    assert row.val_accuracy is not None
    assert row.val_loss is not None
    return -row.val_accuracy, row.val_loss


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


def _pruned(plan: Plan, left: Sequence[Configuration], settled: Set[str]) -> frozenset[str]:
    """What has failed has been run: it counts as failed."""
    alive = {configuration.id for configuration in left}
    return frozenset(
        trial.id
        for trial in plan.trials
        if trial.configuration.id not in alive and trial.id not in settled
    )
