"""Pruning: configurations that are given up after some folds, by what the same folds say of others.

Two configurations are only ever compared on equal folds: a mean over folds 2 and 3 says nothing
beside one over 4 and 5, which is what a scheduler that takes trials one by one would compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby

from orchestrator.configuration_scores import ConfigurationScores, configuration_scores, sort_key
from orchestrator.specification import HalvingPruner, WilcoxonPruner
from orchestrator.trials import Plan, Trial
from orchestrator.verdict import folds_of

Pruner = HalvingPruner | WilcoxonPruner


@dataclass(frozen=True)
class Stage:
    """What is to run before configurations can be compared again.

    Attributes:
        trials: of the configurations that are left, on the folds that they are compared on.
        pruned: trials that are not run any more, by their identity.
    """

    trials: tuple[Trial, ...]
    pruned: frozenset[str]


def stage(
    plan: Plan, pruner: Pruner, values: Mapping[str, float | None], settled: Set[str]
) -> Stage:
    """The folds to run next; none that is not settled where the sweep is at its end.

    It is found anew from the first fold on, by the scores alone: in whatever order trials finish,
    and however often a sweep is continued, the same are pruned.

    Args:
        plan: its folds come in its order, all seeds of a fold together.
        pruner: when to compare and what to give up.
        values: the plan's metric of each finished trial, by its identity.
        settled: trials that have finished or failed.
    """
    folds = [tuple(group) for _, group in groupby(plan.trials, lambda t: (t.test_fold, t.fold))]
    left = set(plan.trials_of)
    trials: tuple[Trial, ...] = ()
    for count in _rungs(pruner, len(folds)):
        trials = tuple(t for fold in folds[:count] for t in fold if t.configuration.id in left)
        if count == len(folds) or not settled >= {trial.id for trial in trials}:
            break
        scores = _scores(plan, trials, values)
        # Where all have failed, or no fold so far defines the metric, nothing is known of any.
        if scores:
            left = set(_kept(pruner, scores, plan.mode))
    return Stage(trials, _pruned(plan, left, settled))


def _rungs(pruner: Pruner, folds: int) -> list[int]:
    """After how many folds configurations are compared, and all of them."""
    if isinstance(pruner, WilcoxonPruner):
        return [*range(min(pruner.folds, folds), folds), folds]
    rungs, count = [], pruner.folds
    while count < folds:
        rungs.append(count)
        count *= pruner.factor
    return [*rungs, folds]


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
