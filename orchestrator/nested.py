"""Nested cross-validation: which inner trials are one training, and what they choose.

For each outer test fold a cross-validation over the other folds ranks the configurations; the best
one is trained anew on all of these and tested once, so that nothing is chosen on what it is scored
on (Stone 1974, Cross-validatory choice and assessment of statistical predictions; Varma and Simon
2006, Bias in error estimation when using cross-validation for model selection).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from orchestrator.common_epoch import epochs_without_validation
from orchestrator.configuration_scores import Best, best_configuration
from orchestrator.hyperparameters import PlateauSchedule
from orchestrator.records import EpochRow
from orchestrator.trials import Configuration, Plan, Trial


@dataclass(frozen=True)
class Choice:
    """What the inner trials of one test fold have chosen.

    Attributes:
        test_fold: that none of them has seen.
        best: the configuration, and its inner scores.
        stop: how many epochs it is trained for; see `Fit`.
        trials: its outer trials, one a seed.
    """

    test_fold: int
    best: Best
    stop: int
    trials: tuple[Trial, ...]


def twins(plan: Plan) -> dict[str, Trial]:
    """Of each two inner trials that are one training, the second by the identity of the first.

    One that tests fold 1 and validates fold 2 trains on the same clips, from the same draws, as
    the one that tests 2 and validates 1; unless what it does next depends on the validation.
    """
    if plan.protocol != "nested":
        return {}
    at = {(t.configuration.id, t.test_fold, t.fold, t.seed): t for t in plan.trials}
    found = {}
    for trial in plan.trials:
        other = at.get((trial.configuration.id, trial.fold, trial.test_fold, trial.seed))
        if other is not None and other.id not in found and _blind(trial.configuration):
            found[trial.id] = other
    return found


def _blind(configuration: Configuration) -> bool:
    """Whether training goes the same way whatever the validation says."""
    train = configuration.train
    if train is None:
        return True
    return train.early_stopping is None and not isinstance(train.schedule, PlateauSchedule)


def choices(
    plan: Plan,
    values: Mapping[str, float | None],
    curves: Mapping[str, Sequence[EpochRow]],
    settled: Set[str],
) -> tuple[Choice, ...]:
    """The choices that can be made, by test fold.

    Args:
        plan: of a nested cross-validation.
        values: the plan's metric of each finished inner trial, by its identity.
        curves: its epochs, likewise.
        settled: the inner trials that have finished or failed: a fold waits for all of its own.
    """
    inner: dict[int, list[Trial]] = {}
    for trial in plan.trials:
        if trial.test_fold is not None:
            inner.setdefault(trial.test_fold, []).append(trial)
    found = []
    for test_fold, trials in inner.items():
        best = best_configuration(plan.of(trials), values)
        if best is not None and settled >= {trial.id for trial in trials}:
            seeds = dict.fromkeys(trial.seed for trial in trials)
            outer = tuple(Trial(best.configuration, test_fold, None, seed) for seed in seeds)
            train, inner_curves = best.configuration.train, [curves[f.trial.id] for f in best.folds]
            stop = epochs_without_validation(train, inner_curves)
            found.append(Choice(test_fold, best, stop, outer))
    return tuple(found)
