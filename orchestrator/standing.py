"""Standing: where a sweep and its configurations stand, worked out once for all of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from orchestrator.configuration_scores import (
    Best,
    ConfigurationScores,
    best_configuration,
    configuration_scores,
    ranks,
)
from orchestrator.csv_files import text
from orchestrator.records import Status
from orchestrator.report_source import ReportSource
from orchestrator.report_view import Pair
from orchestrator.run_sets import repeated, twice_validated
from orchestrator.run_summaries import RunSummary, run_summaries
from orchestrator.score_text import ScoreText, value_text
from orchestrator.trials import Configuration, Plan, Trial, varying_paths
from orchestrator.verdict import Verdict, judge


@dataclass(frozen=True)
class Standing:
    """The scores of a run directory by the metric that its configurations are ranked by.

    Attributes:
        source: of the run directory.
        running: whether a driver is at work on it.
    """

    source: ReportSource
    running: bool

    @property
    def plan(self) -> Plan:
        """Every trial."""
        return self.source.plan

    @property
    def metric(self) -> ScoreText:
        """What configurations are ranked by."""
        return ScoreText(self.plan.metric)

    @cached_property
    def counts(self) -> Mapping[Status, int]:
        """Trials by status."""
        return Counter(row.status for row in self.source.trials + self.source.outer)

    @property
    def to_go(self) -> int:
        """Trials that are still to be run, those included that results are yet to choose."""
        return self.counts.get(Status.PENDING, 0) + self.plan.to_come

    @cached_property
    def scores(self) -> tuple[ConfigurationScores, ...]:
        """Of every configuration, in plan order."""
        return configuration_scores(self.plan, self.source.values(self.plan.metric))

    @cached_property
    def best(self) -> Best | None:
        """By the tables' own rule."""
        return best_configuration(self.plan, self.source.values(self.plan.metric))

    @cached_property
    def verdict(self) -> Verdict | None:
        """How sure the best is."""
        return judge(self.scores, self.best, self.plan.mode) if self.best else None

    @cached_property
    def ranked(self) -> tuple[tuple[int | None, ConfigurationScores], ...]:
        """Every configuration with its rank, the best first, those without a rank last."""
        places = ranks(self.scores, self.plan.mode)
        pairs = zip(places, self.scores, strict=True)
        return tuple(sorted(pairs, key=lambda pair: (pair[0] is None, pair[0] or 0)))

    @cached_property
    def has_test(self) -> bool:
        """Whether there is a test fold."""
        return any(trial.test_fold is not None for trial in self.plan.trials)

    @cached_property
    def summaries(self) -> tuple[RunSummary, ...]:
        """The run summaries, in plan order."""
        return run_summaries(self.plan)

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names in plan order."""
        return tuple(dict.fromkeys(c.model.name for c in self.plan.configurations))

    @cached_property
    def _varying_of(self) -> dict[str, tuple[str, ...]]:
        members: dict[str, list[Configuration]] = {}
        for configuration in self.plan.configurations:
            members.setdefault(configuration.model.name, []).append(configuration)
        return {name: varying_paths(tuple(found)) for name, found in members.items()}

    @cached_property
    def telling(self) -> tuple[str, ...]:
        """The varying paths that tell configurations apart whose model is the same, and the model.

        Left out is what varies only because one model has it and another has not.
        """
        within = {path for paths in self._varying_of.values() for path in paths}
        return tuple(p for p in self.plan.varying if p in within or p == "model.name")

    @cached_property
    def _ambiguous(self) -> tuple[frozenset[int | None], bool]:
        return twice_validated(self.plan.trials), repeated(self.plan)

    def fold_name(self, trial: Trial) -> str:
        """`Fold 2`; with its test fold and seed where these tell trials apart."""
        twice, seeds = self._ambiguous
        name = f"Fold {trial.fold}"
        if trial.fold in twice:
            name += f", test {text(trial.test_fold)}"
        return f"{name}, seed {trial.seed}" if seeds else name

    def parameters(self, configuration: Configuration) -> tuple[Pair, ...]:
        """The varying parameters that a configuration has."""
        found = configuration.parameters
        return tuple(
            Pair(path, value_text(found[path]), code=True)
            for path in self.plan.varying
            if path in found
        )

    def label(self, configuration: Configuration) -> str:
        """A configuration in one line: its model and what varies among those of this model."""
        own = self._varying_of[configuration.model.name]
        pairs = [pair for pair in self.parameters(configuration) if pair.name in own]
        settings = [f"{pair.name.rpartition('.')[2]} = {pair.value}" for pair in pairs]
        return ", ".join([configuration.model.name, *settings])
