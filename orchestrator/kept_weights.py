"""KeptWeights: which trials' weights stay on disk, as `execution.keep_weights` says.

With `best` a trial's weights are written before its record, so that no finished trial lacks them,
and removed once its configuration has every fold finished and is not the best one so far: it
cannot become the best any more. What is on disk is that of one configuration and of those that
are not complete yet.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from orchestrator.configuration_scores import metric_of, scores_of, sort_key
from orchestrator.ledger import Ledger
from orchestrator.records import TrialRecord, Weights
from orchestrator.trials import Plan, Trial

_log = logging.getLogger(__name__)

Keep = Literal["best", "all", "none"]


class KeptWeights:
    """The weights of one run directory while trials of it are run."""

    def __init__(
        self, ledger: Ledger, plan: Plan, keep: Keep, scores: Mapping[str, float | None]
    ) -> None:
        """Remove what a kill between two writes can have left.

        Args:
            ledger: of the run directory.
            plan: every trial.
            keep: `execution.keep_weights`.
            scores: the plan's metric of each trial that has finished before.
        """
        self._ledger = ledger
        # Folds that choose for themselves have no best configuration in common.
        self._keep = "none" if keep == "best" and plan.protocol == "nested" else keep
        self._scores = dict(scores)
        self._best: str | None = None
        self.grow(plan)

    def grow(self, plan: Plan) -> None:
        """Take a plan that has more trials now, or has pruned some."""
        self._plan = plan
        self._configuration = {trial.id: trial.configuration.id for trial in plan.trials}
        self._place = {c.id: i for i, c in enumerate(plan.configurations)}
        if self._keep == "best":
            for trials in plan.trials_of.values():
                if any(trial.id in plan.pruned for trial in trials):
                    self._drop(trials[0].configuration.id)
                self._compare(trials)

    def save(self, record: TrialRecord, weights: Weights | None) -> None:
        """Write the weights of a trial that is about to be recorded, if they may be wanted.

        Raises:
            RunDirectoryError: they cannot be written.
        """
        self._scores[record.trial] = metric_of(record, self._plan.metric)
        if weights is not None and weights.problem:
            _log.warning("%s: its weights cannot be kept: %s", record.trial, weights.problem)
        elif weights is not None and self._wanted(record.trial):
            self._ledger.save_weights(weights)
            return
        # Of an earlier time, when the trial was not recorded or its record damaged.
        self._ledger.drop_weights(record.trial)

    def recorded(self, record: TrialRecord) -> None:
        """A trial has been recorded: remove what cannot be the best any more."""
        configuration = self._configuration.get(record.trial)
        if self._keep == "best" and configuration is not None:
            self._compare(self._plan.trials_of[configuration])

    def _wanted(self, trial: str) -> bool:
        if self._keep == "best":
            # What no configuration is ranked by, an outer trial, is not wanted.
            configuration = self._configuration.get(trial)
            return configuration is not None and not self._lost(configuration)
        return self._keep == "all"

    def _compare(self, trials: Sequence[Trial]) -> None:
        """Let a configuration whose trials have all finished be the best, or drop it."""
        if self._rank(trials[0].configuration.id) is None:
            return
        configuration = trials[0].configuration.id
        if self._lost(configuration):
            self._drop(configuration)
        elif configuration != self._best:
            if self._best is not None:
                self._drop(self._best)
            self._best = configuration

    def _lost(self, configuration: str) -> bool:
        """Whether it cannot be the best: all its trials have finished and another one is better."""
        rank = self._rank(configuration)
        if rank is None:
            return False
        if math.isinf(rank[0]):
            return True
        best = None if self._best is None else self._rank(self._best)
        return best is not None and best < rank

    def _rank(self, configuration: str) -> tuple[float, int] | None:
        """What `best_configuration` ranks by; None while a trial is missing that will be run."""
        trials = self._plan.trials_of[configuration]
        scores = scores_of(trials, self._scores)
        if not scores.complete:
            pruned = any(trial.id in self._plan.pruned for trial in trials)
            return (math.inf, self._place[configuration]) if pruned else None
        return sort_key(scores.mean, self._plan.mode), self._place[configuration]

    def _drop(self, configuration: str) -> None:
        for trial in self._plan.trials_of[configuration]:
            self._ledger.drop_weights(trial.id)
