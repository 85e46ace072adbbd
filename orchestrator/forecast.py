"""Forecast: how long a sweep takes, from the trials of it that have finished."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.costs import Costs, kind, longest_first
from orchestrator.errors import RunDirectoryError
from orchestrator.experiment import Experiment
from orchestrator.ledger import Ledger
from orchestrator.nested import twins
from orchestrator.provenance import runs
from orchestrator.records import TrialRecord
from orchestrator.remaining import makespan
from orchestrator.trials import Trial

_PER_KIND = 4
"""Records read of each kind of trial: a few tell its time, and thousands take seconds to read."""

_RECORDS = 400
"""Records read in all, but one of each kind at least."""


@dataclass(frozen=True)
class Forecast:
    """The time of a sweep without start-up, features, tables and plots.

    Attributes:
        finished: trials of the plan that have finished.
        whole_seconds: of all trials, from the first start to the last end; None where no trial
            has finished yet, or nobody knows how many will run at once, since a guess would be no
            better than none.
        left_seconds: likewise of those that have not finished.
    """

    finished: int
    whole_seconds: float | None
    left_seconds: float | None


def forecast(experiment: Experiment, ledger: Ledger, workers: int | None) -> Forecast:
    """The time that a sweep takes with so many trials at once.

    Args:
        experiment: what is to be run.
        ledger: of its run directory, which need not exist.
        workers: how many trials run at once; None where only a run will know.
    """
    finished = _finished(experiment, ledger)
    costs = Costs(experiment.split_of)
    for trial in _sample(finished.values()):
        record = _record(ledger, trial)
        if record is None:
            finished.pop(trial.id)
        else:
            costs.note_record(trial, record)
    if not costs.measured or workers is None:
        return Forecast(len(finished) if costs.measured else 0, None, None)
    trials = _trainings(experiment)
    given_up = _given_up(ledger)
    pending = [trial for trial in trials if trial.id not in finished.keys() | given_up]
    return Forecast(
        finished=len(finished),
        whole_seconds=_seconds(trials, costs, {}, workers),
        left_seconds=_seconds(pending, costs, ledger.saved_epochs(pending), workers),
    )


def _trainings(experiment: Experiment) -> list[Trial]:
    """The trials that are trained; of a nested cross-validation the outer ones are guessed."""
    plan = experiment.plan
    shared = {trial.id for trial in twins(plan).values()}
    trials = [trial for trial in plan.trials if trial.id not in shared]
    seeds = dict.fromkeys(trial.seed for trial in plan.trials)
    # Which configuration will be chosen is not known; by its time any of them will do.
    outer = (
        Trial(plan.configurations[0], split.test_fold, None, seed)
        for split in experiment.outer
        for seed in seeds
    )
    return [*trials, *outer]


def _record(ledger: Ledger, trial: Trial) -> TrialRecord | None:
    """None where it cannot be read or used: a run says so, and the plan needs it for nothing."""
    try:
        return ledger.directory.record(trial)
    except RunDirectoryError:
        return None


def _finished(experiment: Experiment, ledger: Ledger) -> dict[str, Trial]:
    """The trials of the plan that have a result, made from the same clips."""
    directory = ledger.directory
    if not directory.has_results():
        return {}
    data = {run.get("data_fingerprint") for run in runs(directory.path)}
    if data and experiment.plan.data not in data:
        return {}
    # Few of very many trials may have a folder, and looking into each takes a while.
    begun = {folder.name for folder in (directory.path / "trials").iterdir()}
    trials = (trial for trial in experiment.plan.trials if trial.id in begun)
    return {trial.id: trial for trial in trials if directory.result_file(trial.id).exists()}


def _given_up(ledger: Ledger) -> frozenset[str]:
    try:
        stored = ledger.read_plan()
    except RunDirectoryError:
        return frozenset()
    return frozenset() if stored is None else stored.pruned


def _sample(finished: Iterable[Trial]) -> list[Trial]:
    """Some of each kind, from its first to its last."""
    kinds: dict[str, list[Trial]] = {}
    known: dict[str, str] = {}
    for trial in finished:
        configuration = trial.configuration
        if configuration.id not in known:
            known[configuration.id] = kind(configuration)
        kinds.setdefault(known[configuration.id], []).append(trial)
    most = max(min(_PER_KIND, _RECORDS // max(len(kinds), 1)), 1)
    return [trial for trials in kinds.values() for trial in trials[:: -(-len(trials) // most)]]


def _seconds(trials: Iterable[Trial], costs: Costs, saved: dict[str, int], workers: int) -> float:
    ordered = longest_first(list(trials), costs, saved)
    seconds = (costs.seconds_left(trial, saved.get(trial.id, 0)) for trial in ordered)
    return makespan([], seconds, workers)
