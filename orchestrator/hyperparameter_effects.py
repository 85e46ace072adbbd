"""How the score depends on each hyperparameter; computed, not drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.configuration_scores import ConfigurationScores
from orchestrator.csv_files import text
from orchestrator.trials import Value

MOST_LEVELS = 12
"""Values up to which numbers are levels, each with a mean of its own, and not a range."""

PARTS = 4
"""Parts of equal size that a range is divided into."""

_LOG_SPREAD = 4.0
"""Largest by smallest value from which numbers can be log-spaced."""

Scale = Literal["linear", "log", "names"]


@dataclass(frozen=True)
class Hyperparameter:
    """A key that varies, and the configurations that have it and a score.

    Attributes:
        path: dotted.
        scores: the plan's metric of these configurations, in plan order.
    """

    path: str
    scores: tuple[ConfigurationScores, ...]

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """The value of each configuration."""
        return tuple(one.configuration.parameters[self.path] for one in self.scores)

    @cached_property
    def levels(self) -> tuple[Value, ...]:
        """The distinct values: numbers ascending, others in plan order."""
        distinct = tuple({text(value): value for value in self.values}.values())
        return tuple(sorted(distinct, key=_number)) if self.numeric else distinct

    @cached_property
    def numeric(self) -> bool:
        """Every value is a number and none a truth value."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    @property
    def is_range(self) -> bool:
        """Too many numbers for a mean of each."""
        return self.numeric and len(self.levels) > MOST_LEVELS

    @cached_property
    def scale(self) -> Scale:
        """`log` or `linear` for numbers; `names`, evenly spaced, for others and 0 beside powers."""
        if not self.numeric:
            return "names"
        values = np.array([_number(v) for v in self.levels])
        positive = values[values > 0]
        wide = len(positive) > 1 and positive[-1] / positive[0] >= _LOG_SPREAD
        if not wide or values[0] < 0 or not _even_in_log(positive):
            return "linear"
        if values[0] > 0:
            return "log"
        return "linear" if self.is_range else "names"

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Where each configuration stands on the axis: its number, or the index of its level."""
        if self.scale != "names":
            return np.array([_number(v) for v in self.values])
        return np.array([self._index[text(v)] for v in self.values], dtype=np.float64)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The level of each configuration, or the part of the range."""
        if self.is_range:
            numbers = np.array([_number(v) for v in self.values])
            edges = np.quantile(numbers, np.arange(1, PARTS) / PARTS)
            return np.searchsorted(edges, numbers).astype(np.int64)
        return np.array([self._index[text(v)] for v in self.values], dtype=np.int64)

    @cached_property
    def effect(self) -> float:
        """Share of the variance between configurations that the groups explain, 0 to 1.

        The square of the correlation ratio, from each configuration's mean over its folds.
        """
        means = np.array([one.mean for one in self.scores], dtype=np.float64)
        total = float(((means - means.mean()) ** 2).sum())
        if total == 0:
            return 0.0
        parts = [means[self.groups == group] for group in np.unique(self.groups)]
        return float(sum(p.size * (p.mean() - means.mean()) ** 2 for p in parts)) / total

    @cached_property
    def _index(self) -> dict[str, int]:
        return {text(value): i for i, value in enumerate(self.levels)}


@dataclass(frozen=True)
class Grid:
    """The score at each pair of levels of two hyperparameters.

    Attributes:
        rows: the first one, of levels.
        columns: the second one, likewise.
        means: over all trials with both, `[rows, columns]`; NaN where there is none.
        trials: how many `[rows, columns]`.
    """

    rows: Hyperparameter
    columns: Hyperparameter
    means: NDArray[np.float64]
    trials: NDArray[np.int64]

    def best(self, mode: str) -> tuple[int, int]:
        """The cell of the best mean; the first of equal ones."""
        worst = np.inf if mode == "min" else -np.inf
        filled = np.where(np.isnan(self.means), worst, self.means)
        at = int(filled.argmin() if mode == "min" else filled.argmax())
        return at // self.means.shape[1], at % self.means.shape[1]


def hyperparameters(
    scores: Sequence[ConfigurationScores], paths: Sequence[str]
) -> list[Hyperparameter]:
    """Those of the paths that take at least two values among the configurations with a score."""
    scored = [one for one in scores if one.mean is not None]
    found = (
        Hyperparameter(path, tuple(s for s in scored if path in s.configuration.parameters))
        for path in paths
    )
    return [one for one in found if len(one.levels) > 1]


def grid(rows: Hyperparameter, columns: Hyperparameter) -> Grid:
    """The mean over all trials at each pair of levels."""
    both = {one.configuration.id: one for one in rows.scores}
    row_of = dict(zip(both, rows.groups, strict=True))
    shape = (len(rows.levels), len(columns.levels))
    sums, trials = np.zeros(shape), np.zeros(shape, np.int64)
    for one, column in zip(columns.scores, columns.groups, strict=True):
        row = row_of.get(one.configuration.id)
        if row is not None:
            sums[row, column] += sum(one.values)
            trials[row, column] += len(one.values)
    means = np.full(shape, np.nan)
    np.divide(sums, trials, out=means, where=trials > 0)
    return Grid(rows, columns, means, trials)


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _even_in_log(values: NDArray[np.float64]) -> bool:
    """Whether ascending positive values are more evenly spaced as powers than as numbers."""
    if len(values) < 3:
        return True
    logs = np.log(values)
    steps, log_steps = np.diff(values) / np.ptp(values), np.diff(logs) / np.ptp(logs)
    return bool(log_steps.std() < steps.std())
