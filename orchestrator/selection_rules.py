"""Selection rules: what a configuration scores by each way of choosing the epoch that counts.

Four rules beside each other, on the epochs of one training (`train.select` names the one that
the other tables go by):

1. `validation_epoch`: each trial's own best epoch on validation (accuracy, then loss, then the
   earlier one).
2. `common_epoch`: one epoch for all folds, the best by the mean over them, again by validation.
3. `last_epoch`: no choice at all.
4. `test_epoch`: each trial's best epoch on the test split. It sees the answers, so that its test
   score is too good: it is here to be compared with and never used for anything.

What an epoch scores on the test split is known with `train.test_every_epoch`; otherwise of the
epoch alone that `train.select` has named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from orchestrator.csv_files import Cell, TableFolder
from orchestrator.outcomes import Entry
from orchestrator.records import EpochRow, TrialRecord
from orchestrator.statistics import standard_deviation
from orchestrator.trials import Configuration, Plan

NAME = "selection_rules.csv"

Floats = NDArray[np.float64]


class Rule(StrEnum):
    """A way to choose the epoch that counts."""

    VALIDATION = "validation_epoch"
    COMMON = "common_epoch"
    LAST = "last_epoch"
    TEST = "test_epoch"

    @property
    def optimistic(self) -> bool:
        """Whether it chooses by the test split."""
        return self is Rule.TEST


USED = {"best": Rule.VALIDATION, "last": Rule.LAST}
"""The rule of each `train.select`."""


@dataclass(frozen=True, slots=True)
class EpochScores:
    """What the epochs of one trial score, from epoch 0.

    Attributes:
        val: accuracy and loss on validation, `[2, epochs]`.
        test: likewise on the test split; None where not every epoch is known.
        chosen: the epoch that `train.select` has named.
        chosen_test: accuracy on the test split at that epoch; None without one.
    """

    val: Floats
    test: Floats | None
    chosen: int
    chosen_test: float | None

    @classmethod
    def of(cls, record: TrialRecord) -> EpochScores:
        """Those of a record, without the rest of it."""
        rows = record.epochs
        known = all(row.test_accuracy is not None for row in rows)
        return cls(
            val=_matrix(rows, lambda row: (row.val_accuracy, row.val_loss)),
            test=_matrix(rows, lambda row: (row.test_accuracy, row.test_loss)) if known else None,
            chosen=record.epoch,
            chosen_test=None if record.test is None else record.test.scores.accuracy,
        )

    def test_at(self, epoch: int) -> float | None:
        """Accuracy on the test split after an epoch; None where not known."""
        if self.test is not None:
            return float(self.test[0, epoch])
        return self.chosen_test if epoch == self.chosen else None


class EpochCollection:
    """The epochs of every finished trial, collected in the one pass over the records."""

    def __init__(self) -> None:
        """Start with no trial."""
        self.by_trial: dict[str, EpochScores] = {}

    def note(self, entry: Entry) -> None:
        """Take the next trial, unless it validates nothing."""
        if entry.record is not None and entry.record.val is not None:
            self.by_trial[entry.outcome.trial.id] = EpochScores.of(entry.record)


@dataclass(frozen=True)
class Spread:
    """Accuracies of the trials of a configuration: fractions, in plan order.

    Attributes:
        values: at least one.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return math.fsum(self.values) / len(self.values)

    @property
    def std(self) -> float:
        """Standard deviation, ddof 0."""
        return standard_deviation(self.values, ddof=0) or 0.0


@dataclass(frozen=True)
class RuleScores:
    """A configuration by one rule.

    Attributes:
        rule: how the epochs were chosen.
        epochs: of each finished trial in plan order; empty where the rule cannot be applied.
        val: accuracies at these; None likewise.
        test: likewise; None too unless every trial's is known.
    """

    rule: Rule
    epochs: tuple[int, ...] = ()
    val: Spread | None = None
    test: Spread | None = None


@dataclass(frozen=True)
class ConfigurationRules:
    """A configuration by every rule.

    Attributes:
        configuration: the point of the search space.
        trials: finished ones.
        rules: in the order of `Rule`.
    """

    configuration: Configuration
    trials: int
    rules: tuple[RuleScores, ...]

    def gap(self, one: RuleScores, split: str) -> float | None:
        """How far a rule's mean is above that of `validation_epoch`; None where not known."""
        base = self.rules[0]
        mine, its = (one.val, base.val) if split == "val" else (one.test, base.test)
        return None if mine is None or its is None else mine.mean - its.mean


def selection_rules(
    plan: Plan, by_trial: Mapping[str, EpochScores]
) -> tuple[ConfigurationRules, ...]:
    """Every configuration by every rule, in plan order.

    Args:
        plan: every trial.
        by_trial: the epochs of the finished trials, by identity.
    """
    return tuple(
        _of_configuration(trials[0].configuration, found)
        for trials in plan.trials_of.values()
        for found in [[by_trial[trial.id] for trial in trials if trial.id in by_trial]]
    )


def gap_line(rules: ConfigurationRules) -> str:
    """What the other rules would make of a configuration's test accuracy, in a line.

    Empty unless it is known by every rule.
    """
    base, *others = rules.rules
    gaps = [(one.rule, rules.gap(one, "test")) for one in others]
    known = [(rule, gap) for rule, gap in gaps if gap is not None]
    if base.test is None or len(known) < len(gaps):
        return ""
    each = ", ".join(
        f"{rule} {gap:+.4f}{' (optimistic)' if rule.optimistic else ''}" for rule, gap in known
    )
    return (
        f"test accuracy of the best configuration by {base.rule}: mean {base.test.mean:.4f};"
        f" by {each}"
    )


def write_selection_rules(
    folder: TableFolder, plan: Plan, every: Sequence[ConfigurationRules]
) -> None:
    """Write `selection_rules.csv`: one row a configuration and rule.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    header = (
        "configuration",
        *(f"param_{path}" for path in plan.varying),
        *("protocol", "rule", "optimistic", "used", "trials", "epochs"),
        *("mean_val_accuracy", "std_val_accuracy", "mean_test_accuracy", "std_test_accuracy"),
        *("gap_val_accuracy", "gap_test_accuracy"),
    )
    rows = (_row(plan, of_one, one) for of_one in every for one in of_one.rules)
    folder.write(NAME, header, rows)


def _row(plan: Plan, of_one: ConfigurationRules, one: RuleScores) -> list[Cell]:
    configuration = of_one.configuration
    return [
        configuration.id,
        *(configuration.parameters.get(path) for path in plan.varying),
        plan.protocol,
        one.rule.value,
        one.rule.optimistic,
        _used(configuration) is one.rule,
        of_one.trials,
        list(one.epochs) if one.epochs else None,
        *(_mean_and_std(one.val)),
        *(_mean_and_std(one.test)),
        of_one.gap(one, "val"),
        of_one.gap(one, "test"),
    ]


def _used(configuration: Configuration) -> Rule:
    """An estimator of scikit-learn has one epoch, which is the last."""
    train = configuration.train
    return Rule.LAST if train is None else USED[train.select]


def _mean_and_std(spread: Spread | None) -> list[Cell]:
    return [None, None] if spread is None else [spread.mean, spread.std]


def _of_configuration(
    configuration: Configuration, trials: Sequence[EpochScores]
) -> ConfigurationRules:
    rules = tuple(_by_rule(rule, trials) for rule in Rule)
    return ConfigurationRules(configuration, len(trials), rules)


def _by_rule(rule: Rule, trials: Sequence[EpochScores]) -> RuleScores:
    epochs = _EPOCHS[rule](trials) if trials else None
    if epochs is None:
        return RuleScores(rule)
    val = [float(t.val[0, epoch]) for t, epoch in zip(trials, epochs, strict=True)]
    test = [t.test_at(epoch) for t, epoch in zip(trials, epochs, strict=True)]
    known = tuple(value for value in test if value is not None)
    return RuleScores(
        rule,
        tuple(epochs),
        Spread(tuple(val)),
        Spread(known) if len(known) == len(trials) else None,
    )


def _validation_epochs(trials: Sequence[EpochScores]) -> list[int]:
    return [_best_epoch(*one.val) for one in trials]


def _common_epochs(trials: Sequence[EpochScores]) -> list[int]:
    """The best epoch by the means over the trials, of those epochs that all of them have."""
    length = min(one.val.shape[1] for one in trials)
    means = np.mean([one.val[:, :length] for one in trials], axis=0)
    # Means that are equal on paper differ in their last bits.
    return [_best_epoch(np.round(means[0], 12), means[1])] * len(trials)


def _last_epochs(trials: Sequence[EpochScores]) -> list[int]:
    return [one.val.shape[1] - 1 for one in trials]


def _test_epochs(trials: Sequence[EpochScores]) -> list[int] | None:
    tests = [one.test for one in trials if one.test is not None]
    return [_best_epoch(*test) for test in tests] if len(tests) == len(trials) else None


_EPOCHS: dict[Rule, Callable[[Sequence[EpochScores]], list[int] | None]] = {
    Rule.VALIDATION: _validation_epochs,
    Rule.COMMON: _common_epochs,
    Rule.LAST: _last_epochs,
    Rule.TEST: _test_epochs,
}


def _best_epoch(accuracies: Floats, losses: Floats) -> int:
    """The highest accuracy; of equal ones the lowest loss, then the earliest."""
    return int(np.lexsort((losses, -accuracies))[0])


def _matrix(
    rows: Sequence[EpochRow], pair: Callable[[EpochRow], tuple[float | None, float | None]]
) -> Floats:
    return np.array([pair(row) for row in rows], dtype=np.float64).T
