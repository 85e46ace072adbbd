"""Tracking: what a sweep tells TensorBoard, MLflow and W&B, beside its run directory.

Each tracker has a thread of its own: a slow or absent server costs the sweep nothing. What goes
wrong there is one warning, and the sweep goes on without it. A trial counts as logged when its
tracker says so, so that a later call logs what an earlier one could not or was not asked to.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from orchestrator import atomic
from orchestrator.csv_files import text
from orchestrator.errors import RunDirectoryError, SpecificationError
from orchestrator.records import EpochRow, TrialFailure, TrialRecord
from orchestrator.run_directory import RunDirectory
from orchestrator.sweep import Sweep
from orchestrator.tracker_spec import MlflowSpec, TensorBoardSpec, WandbSpec
from orchestrator.trials import Plan, Trial

_log = logging.getLogger(__name__)

Spec: TypeAlias = TensorBoardSpec | MlflowSpec | WandbSpec
Metrics: TypeAlias = dict[str, float]

_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
_PATIENCE = 60.0
"""Seconds that the end of a sweep waits for a tracker which gets nothing done."""

_PATIENCE_INTERRUPTED = 5.0


class Tracker(Protocol):
    """One destination; every method runs in one thread, and may raise whatever it likes."""

    def logged(self) -> frozenset[str]:
        """The identities of the trials that are there from beginning to end."""

    def start(self, trial: Trial) -> None:
        """A trial begins: what an earlier attempt at it has left goes."""

    def rows(self, trial: Trial, rows: Sequence[EpochRow]) -> None:
        """Some epochs of a trial, in order."""

    def finish(self, trial: Trial, scores: Metrics) -> None:
        """A trial ended well, with these scores."""

    def fail(self, trial: Trial, error: str) -> None:
        """A trial ended with an error."""

    def close(self) -> None:
        """Nothing more comes; trials that are not at their end were interrupted."""


class Tracking:
    """Passes on what happens to every tracker; returns at once and raises nothing."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        """Pass on to these."""
        self._channels = channels

    def grow(self, plan: Plan) -> None:
        """The plan has more trials now."""
        for channel in self._channels:
            channel.grow(plan)

    def started(self, trial: str, epoch: int) -> None:
        """A trial runs its first step, from this epoch on, or starts again."""
        for channel in self._channels:
            channel.put(partial(channel.started, trial, epoch))

    def epoch(self, trial: str, row: EpochRow) -> None:
        """A trial ended an epoch."""
        for channel in self._channels:
            channel.put(partial(channel.epoch, trial, row))

    def finished(self, record: TrialRecord) -> None:
        """A trial ended well."""
        for channel in self._channels:
            channel.put(partial(channel.finished, record.trial, record.epochs, scores(record)))

    def failed(self, failure: TrialFailure) -> None:
        """A trial ended with an error."""
        for channel in self._channels:
            channel.put(partial(channel.failed, failure.trial, failure.error))


def refuse_missing(sweep: Sweep) -> None:
    """Raise SpecificationError for a tracker whose package is not installed."""
    faults = []
    for i, spec in enumerate(sweep.settings.trackers):
        if importlib.util.find_spec(_PACKAGES[spec.name]) is None:
            found = f"{spec.name}, whose package is not installed"
            allowed = f'it after pip install "foldgrid[{spec.name}]"'
            faults.append(str(sweep.source.fault(("trackers", i), found, allowed)))
    if faults:
        raise SpecificationError(*faults)


@contextmanager
def tracking(
    plan: Plan, specs: Sequence[Spec], directory: RunDirectory, stop: threading.Event
) -> Iterator[Tracking]:
    """Trackers for as long as the block runs; its end waits for what they have not logged yet.

    Args:
        plan: every trial.
        specs: of the trackers.
        directory: where trials stand that finished in an earlier call.
        stop: once it is set the end does not wait long.

    Raises:
        RunDirectoryError: the run directory cannot be written.
    """
    sweep = _sweep(directory.path / "trackers") if specs else ""
    channels = [
        Channel(spec.name, partial(_tracker, spec, plan, directory.path, sweep)) for spec in specs
    ]
    for channel in channels:
        channel.open(plan, directory)
    try:
        yield Tracking(channels)
    finally:
        for channel in channels:
            channel.close(stop)


def scores(record: TrialRecord) -> Metrics:
    """The scores of a finished trial: `final_` and the name of the column in `trials.csv`."""
    found: Metrics = {"final_epoch": record.epoch}
    for split, result in (("val", record.val), ("test", record.test)):
        if result is not None:
            values = asdict(result.scores).items()
            found |= {f"final_{split}_{k}": v for k, v in values if v is not None}
    return found


def metrics(row: EpochRow) -> Metrics:
    """What is measured of an epoch, by the column's name in `epochs.csv`."""
    return {k: v for k, v in asdict(row).items() if k != "epoch" and v is not None}


def parameters(trial: Trial) -> dict[str, str | int | float | bool]:
    """The parameters of a trial's configuration by dotted path; lists as text."""
    values = trial.configuration.parameters.items()
    return {k: v if isinstance(v, str | int | float) else text(v) for k, v in values}


def place(trial: Trial) -> dict[str, str | int]:
    """Where a trial stands in its plan."""
    folds = {"test_fold": trial.test_fold, "fold": trial.fold}
    return {
        "trial": trial.id,
        "configuration": trial.configuration.id,
        **{name: fold for name, fold in folds.items() if fold is not None},
        "seed": trial.seed,
    }


def _tracker(spec: Spec, plan: Plan, run_dir: Path, sweep: str) -> Tracker:
    folder = run_dir / "trackers" / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    module: Any = importlib.import_module(f"orchestrator.{spec.name}_tracker")
    tracker: Tracker = module.connect(spec, plan, folder, sweep)
    return tracker


def _sweep(folder: Path) -> str:
    """What tells this run directory's trials from another one's on a server, drawn at random."""
    path = folder / ".sweep"
    try:
        if not path.is_file():
            folder.mkdir(exist_ok=True)
            atomic.write_text(path, secrets.token_hex(8))
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot write: {atomic.reason(error)}") from error


class Channel:
    """A tracker, its thread, and what is still to be said to it."""

    def __init__(self, name: str, connect: Callable[[], Tracker]) -> None:
        """Connect in the thread, once it is open."""
        self._name = name
        self._connect = connect
        self._steps: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._trials: dict[str, Trial] = {}
        # Of each trial on its way: the epochs that are logged, and those that are not yet.
        self._logged: dict[str, list[int]] = {}
        self._waiting: dict[str, list[EpochRow]] = {}
        self._moved = time.monotonic()
        self._off = False

    def open(self, plan: Plan, directory: RunDirectory) -> None:
        """Start, with the trials that finished before."""
        self.grow(plan)
        self._thread = threading.Thread(
            target=self._work, args=(directory,), name=f"tracker {self._name}", daemon=True
        )
        self._thread.start()

    def grow(self, plan: Plan) -> None:
        """Know the trials of this plan."""
        self._trials = {trial.id: trial for trial in plan.every}

    def put(self, step: Callable[[Tracker], None]) -> None:
        """Something to be said to the tracker when it has time."""
        if not self._off:
            self._steps.put(step)

    def close(self, stop: threading.Event) -> None:
        """Wait until everything is said, unless nothing moves any more."""
        self._steps.put(None)
        closed = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.1)
            patience = _PATIENCE_INTERRUPTED if stop.is_set() else _PATIENCE
            if time.monotonic() - max(closed, self._moved) > patience:
                self._off = True
                _log.warning("tracker %s: does not answer; %s", self._name, _LATER)
                return

    def started(self, trial: str, epoch: int, tracker: Tracker) -> None:
        """A trial begins, or goes on where it is open already."""
        if epoch == 0 or trial not in self._logged:
            tracker.start(self._trials[trial])
            self._logged[trial], self._waiting[trial] = [], []

    def epoch(self, trial: str, row: EpochRow, tracker: Tracker) -> None:
        """An epoch, to be logged with others when nothing else is to be done."""
        if trial in self._logged and row.epoch not in self._logged[trial]:
            self._logged[trial].append(row.epoch)
            self._waiting[trial].append(row)

    def finished(
        self, trial: str, rows: Sequence[EpochRow], found: Metrics, tracker: Tracker
    ) -> None:
        """A trial that is done; anew where it was not followed from its first epoch on."""
        waiting = self._waiting.pop(trial, [])
        if self._logged.pop(trial, None) != [row.epoch for row in rows]:
            tracker.start(self._trials[trial])
            waiting = list(rows)
        if waiting:
            tracker.rows(self._trials[trial], waiting)
        tracker.finish(self._trials[trial], found)

    def failed(self, trial: str, error: str, tracker: Tracker) -> None:
        """A trial that went wrong."""
        if self._logged.pop(trial, None) is None:
            tracker.start(self._trials[trial])
        if waiting := self._waiting.pop(trial, []):
            tracker.rows(self._trials[trial], waiting)
        tracker.fail(self._trials[trial], error)

    def _work(self, directory: RunDirectory) -> None:
        try:
            tracker = self._connect()
            self._catch_up(tracker, directory)
            while (step := self._steps.get()) is not None:
                step(tracker)
                if self._steps.empty():
                    self._flush(tracker)
                self._moved = time.monotonic()
            self._flush(tracker)
            tracker.close()
        except Exception as error:
            if not self._off:
                self._off = True
                told = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                _log.warning("tracker %s: %s; %s", self._name, told, _LATER, exc_info=error)

    def _catch_up(self, tracker: Tracker, directory: RunDirectory) -> None:
        """Log what has finished in earlier calls and is not there."""
        there = tracker.logged()
        for trial in list(self._trials.values()):
            if trial.id in there or not directory.result_file(trial.id).exists():
                continue
            record = directory.record(trial)
            if record is not None:
                self.finished(trial.id, record.epochs, scores(record), tracker)
            self._moved = time.monotonic()

    def _flush(self, tracker: Tracker) -> None:
        for trial, rows in self._waiting.items():
            if rows:
                tracker.rows(self._trials[trial], rows)
                self._waiting[trial] = []


_LATER = "the sweep goes on without it, the next call on this run directory logs what is missing"
