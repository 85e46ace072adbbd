"""Course: what a sweep is to run next, by what its trials have given so far."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from features.clips import Clip
from orchestrator import suggestions
from orchestrator.configuration_scores import metric_of
from orchestrator.costs import Costs
from orchestrator.errors import SpecificationError
from orchestrator.experiment import Experiment, make_experiment, several
from orchestrator.ledger import Ledger
from orchestrator.nested import Choice, choices, twins
from orchestrator.pruning import Known, Pruner, Stage, stage
from orchestrator.records import EpochRow, TrialFailure, TrialPause, TrialRecord
from orchestrator.trials import NearDuplicateRow, Plan, Trial

_log = logging.getLogger(__name__)


@dataclass
class Course:
    """The trials of a sweep, and those that its results call for.

    Attributes:
        experiment: its plan grows with the results of a nested cross-validation or of a search.
        ledger: of the run directory.
        keep_failed: do not run again what failed in an earlier call.
        values: the plan's metric of each finished trial, by its identity.
        failed: trials that are not to be run again in this call.
        costs: what finished trials have taken.
    """

    experiment: Experiment
    ledger: Ledger
    keep_failed: bool = False
    values: dict[str, float | None] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    _left_out: Sequence[tuple[Clip, str]] = ()
    _curves: dict[str, Sequence[EpochRow]] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)
    _choices: tuple[Choice, ...] = ()
    _stage: Stage | None = None

    def __post_init__(self) -> None:
        self.costs = Costs(self.experiment.split_of)
        self._read(self.plan.trials)

    @property
    def plan(self) -> Plan:
        """Every trial so far."""
        return self.experiment.plan

    @property
    def twins(self) -> dict[str, Trial]:
        """See `nested.twins`."""
        return twins(self.plan)

    @property
    def stops(self) -> dict[str, int]:
        """The epochs after which an outer trial ends, by its identity."""
        return {trial.id: one.stop for one in self._choices for trial in one.trials}

    @property
    def pauses(self) -> dict[str, int]:
        """The epochs after which a trial waits for what those beside it have given."""
        if self._stage is None or self._stage.epochs is None:
            return {}
        return {trial.id: self._stage.epochs for trial in self._stage.trials}

    @property
    def grows(self) -> bool:
        """Whether results may call for more trials than are due now."""
        search = self.experiment.sweep.settings.search
        chosen = self.plan.protocol == "nested" or self._pruner is not None
        return chosen or search.method == "optuna"

    @property
    def to_come(self) -> int:
        """How many trials there will be that are not in the plan yet."""
        experiment = self.experiment
        settings = experiment.sweep.settings
        trials = len(experiment.outer) * settings.repeats - len(self.plan.outer)
        if settings.search.method == "optuna":
            left = (settings.search.samples or 0) - len(experiment.sweep.suggestions)
            trials += left * len(experiment.splits) * settings.repeats
        return trials

    @property
    def grown(self) -> Plan:
        """The plan as it is to be kept."""
        return replace(self.plan, to_come=self.to_come)

    @property
    def total(self) -> int:
        """How many trials there will be, as far as that is known."""
        return len(self.plan.every) + self.to_come - len(self.plan.pruned)

    def leave_out(self, bad: Sequence[tuple[Clip, str]]) -> None:
        """Make the experiment anew without these clips."""
        self._left_out = bad
        self._make()

    def found_near(self, rows: tuple[NearDuplicateRow, ...]) -> None:
        """Near-identical clips stand in two folds."""
        plan = replace(self.plan, near_duplicates=rows)
        self.experiment = replace(self.experiment, plan=plan)

    def note(self, record: TrialRecord) -> None:
        """A trial has finished."""
        self._known.add(record.trial)
        self.values[record.trial] = metric_of(record, self.plan.metric)
        if self.plan.protocol == "nested" or self._compares_epochs:
            self._curves[record.trial] = record.epochs

    def pause(self, pause: TrialPause) -> None:
        """A trial waits."""
        self._curves[pause.trial] = pause.epochs

    def fail(self, failure: TrialFailure) -> None:
        """A trial has failed for good."""
        self.failed.add(failure.trial)

    def advance(self) -> list[str]:
        """Let the plan grow by what the results call for; what there is to say of it."""
        if self.experiment.sweep.settings.search.method == "optuna":
            before = len(self.experiment.sweep.suggestions)
            lines = said = self._suggest()
            # A suggestion may be impossible, or have been made before: then the next is asked for.
            while said and not self.due():
                said = self._suggest()
                lines += said
            self._warn_of_impossible(before)
            return lines
        if self._pruner is not None:
            return self._prune(self._pruner)
        return self._choose() if self.plan.protocol == "nested" else []

    def due(self) -> list[Trial]:
        """The trials that can run now, of two that are one training the first."""
        stage, known = self._stage or Stage(self.plan.every, None, frozenset()), self._so_far
        pending = {trial.id for trial in stage.trials if known.lacks(trial, stage.epochs)}
        # One that is left over where the other has finished or failed is trained alone.
        first = {twin.id: trial for trial, twin in self.twins.items() if trial in pending}
        wanted = {first.get(trial, trial) for trial in pending}
        return [trial for trial in self.plan.every if trial.id in wanted]

    @property
    def _so_far(self) -> Known:
        return Known(self.values, self.values.keys() | self.failed, self._curves)

    @property
    def _pruner(self) -> Pruner | None:
        return self.experiment.sweep.settings.search.pruner

    @property
    def _compares_epochs(self) -> bool:
        return self._pruner is not None and self._pruner.epochs is not None

    def _prune(self, pruner: Pruner) -> list[str]:
        before = self.plan.pruned
        self._stage = stage(self.plan, pruner, self._so_far)
        self.experiment = replace(
            self.experiment, plan=replace(self.plan, pruned=self._stage.pruned)
        )
        if self._stage.pruned == before:
            return []
        left = {trial.configuration.id for trial in self._stage.trials} - {
            trial.configuration.id for trial in self.plan.trials if trial.id in self.plan.pruned
        }
        return [f"configurations that go on: {len(left)} of {len(self.plan.configurations)}"]

    def _suggest(self) -> list[str]:
        sweep = self.experiment.sweep
        grown = suggestions.more(sweep, self.plan, self.values, self.failed)
        new = grown.suggestions[len(sweep.suggestions) :]
        if not new:
            return []
        self.experiment = replace(self.experiment, sweep=grown)
        self._make()
        self._read(self.plan.trials)
        of = f"of {sweep.settings.search.samples}"
        return [
            f"suggestion {number} {of}: "
            + (one.problem if one.configuration is None else one.configuration.id)
            for number, one in enumerate(new, len(sweep.suggestions) + 1)
        ]

    def _warn_of_impossible(self, before: int) -> None:
        """Name suggestions that cannot be run; where there is no other, nothing can."""
        suggested = self.experiment.sweep.suggestions
        if suggested and not any(one.configuration for one in suggested):
            raise SpecificationError(*dict.fromkeys(one.problem for one in suggested))
        for number, one in enumerate(suggested[before:], before + 1):
            if one.problem:
                _log.warning("suggestion %d cannot be run: %s", number, one.problem)

    def _choose(self) -> list[str]:
        settled = self.values.keys() | self.failed
        self._choices = choices(self.plan, self.values, self._curves, settled)
        outer = tuple(trial for choice in self._choices for trial in choice.trials)
        if outer == self.plan.outer:
            return []
        self.experiment = replace(self.experiment, plan=replace(self.plan, outer=outer))
        self._read(outer)
        return [
            f"test fold {one.test_fold}: {one.best.configuration.id} is chosen,"
            f" {several(one.stop, 'epoch')}"
            for one in self._choices
        ]

    def _make(self) -> None:
        experiment = self.experiment
        self.experiment = make_experiment(experiment.sweep, experiment.dataset, self._left_out)
        self.found_near(experiment.plan.near_duplicates)

    def _read(self, trials: Iterable[Trial]) -> None:
        """Take in what the run directory has of trials that are new here."""
        for trial in trials:
            if trial.id in self._known:
                continue
            self._known.add(trial.id)
            directory = self.ledger.directory
            record = directory.record(trial)
            if record is not None:
                self.note(record)
                self.costs.note_record(trial, record)
                continue
            if self._compares_epochs and (pause := directory.pause(trial)) is not None:
                self.pause(pause)
            if self.keep_failed and directory.failure(trial) is not None:
                self.failed.add(trial.id)
