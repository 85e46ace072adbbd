"""Dispatch: which trial starts next, and what becomes of those that run. Without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.spec import LogMelSpec
from models.spec import Cnn1dSpec
from orchestrator import dispatch as dispatch_module
from orchestrator.checkpoint import Checkpoint
from orchestrator.dispatch import Dispatch
from orchestrator.errors import LostError
from orchestrator.executors import Job
from orchestrator.hyperparameters import TrainSpec
from orchestrator.records import (
    Cause,
    EpochRow,
    Timing,
    TrialFailure,
    TrialPause,
    TrialRecord,
    Weights,
)
from orchestrator.specification import ResourcesSpec
from orchestrator.trials import Configuration, Trial
from orchestrator.worker import Step

FEATURES = LogMelSpec(n_mels=4, seconds=1.0)
TIMING = Timing("2026-01-01T00:00:00+00:00", 1.0, 1.0, 1, "here", "cpu")


class Heard:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []
        self.checkpoints: dict[str, Checkpoint] = {}
        self.full = False

    def started(self, trial: str, epoch: int) -> None:
        self.words.append(("started", trial, epoch))

    def epoch(self, trial: str, row: EpochRow, seconds: float) -> None:
        if self.full:
            raise OSError("the disk is full")
        self.words.append(("epoch", trial, row.epoch))

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self.checkpoints[checkpoint.trial] = checkpoint

    def last_checkpoint(self, trial: str) -> Checkpoint | None:
        return self.checkpoints.get(trial)

    def remark(self, trial: str, text: str) -> None:
        self.words.append(("remark", trial, text))

    def gpus_shared(self, text: str) -> None: ...

    def waiting(self, seconds: float) -> None:
        self.words.append(("waiting",))

    def retried(self, failure: TrialFailure) -> None:
        self.words.append(("retried", failure.trial, failure.timing.attempts))

    def finished(self, record: TrialRecord, weights: Weights | None) -> None:
        self.words.append(("finished", record.trial, record.timing.attempts))

    def failed(self, failure: TrialFailure) -> None:
        self.words.append(("failed", failure.trial, failure.timing.attempts))

    def paused(self, pause: TrialPause) -> None:
        self.words.append(("paused", pause.trial))


def trials(count: int) -> tuple[Trial, ...]:
    configuration = Configuration(features=FEATURES, model=Cnn1dSpec(), train=TrainSpec(epochs=2))
    return tuple(Trial(configuration, 1, fold, 0) for fold in range(2, count + 2))


def job(count: int = 3, **changes: Any) -> Job:
    given: dict[str, Any] = {
        "trials": trials(count),
        "arrays": {FEATURES: np.zeros((1, 4, 4), np.float32)},
        "labels": np.zeros(1, np.int64),
        "splits": {},
        "classes": 2,
        "import_path": (),
        "resources": ResourcesSpec(cpu=1, gpu=0),
    }
    return Job(**(given | changes))


def dispatched(
    count: int = 3, *, gpus: float = 0.0, stages: Sequence[Any] = (), **changes: Any
) -> tuple[Dispatch, Heard]:
    heard = Heard()
    return Dispatch(job(count, **changes), heard, iter(stages), gpus), heard


def start(dispatch: Dispatch) -> int:
    """Start the next trial, as an executor does; its index."""
    found = dispatch.next()
    assert found is not None
    dispatch.started(found[0].index)
    return found[0].index


def record(dispatch: Dispatch, index: int) -> TrialRecord:
    return TrialRecord(dispatch.job.trials[index].id, 0, (), None, None, None, TIMING)


def failure(dispatch: Dispatch, index: int, cause: Cause) -> TrialFailure:
    return TrialFailure(dispatch.job.trials[index].id, "Error: it", "", TIMING, cause)


def row(epoch: int) -> tuple[EpochRow, float]:
    return EpochRow(epoch, 0.1, 1.0, 0.5, 1.0, 0.5), 2.0


def test_trials_start_in_order_and_no_more_than_allowed_at_once() -> None:
    dispatch, heard = dispatched(3, jobs=2)
    assert [start(dispatch), start(dispatch)] == [0, 1]
    assert dispatch.next() is None
    assert not dispatch.over
    dispatch.heard(0, Step((row(0), row(1)), record(dispatch, 0)))
    assert start(dispatch) == 2
    for index in (1, 2):
        dispatch.heard(index, Step(outcome=record(dispatch, index)))
    assert dispatch.next() is None
    assert dispatch.over
    assert dispatch.error is None
    first = dispatch.job.trials[0].id
    assert [word for word in heard.words if word[1] == first] == [
        ("started", first, 0),
        ("epoch", first, 0),
        ("epoch", first, 1),
        ("finished", first, 1),
    ]


def test_a_trial_whose_worker_died_starts_again_before_the_others() -> None:
    dispatch, heard = dispatched(3, max_failures=1)
    start(dispatch)
    dispatch.died(0, "The actor died unexpectedly", "")
    assert not dispatch.runs(0)
    assert [start(dispatch), start(dispatch)] == [0, 1]
    dispatch.died(0, "The actor died unexpectedly", "")
    assert start(dispatch) == 2
    assert [word[0] for word in heard.words if word[1] == dispatch.job.trials[0].id] == [
        *("started", "retried", "started", "failed")
    ]
    assert heard.words[-2][2] == 2, "the attempts are counted"
    assert dispatch.error is None


def test_a_trial_goes_on_from_its_last_checkpoint() -> None:
    dispatch, heard = dispatched(1, max_failures=1)
    start(dispatch)
    saved = Checkpoint(dispatch.job.trials[0].id, 5, b"weights")
    dispatch.heard(0, Step((row(4),), checkpoint=saved))
    dispatch.died(0, "The actor died unexpectedly", "")
    found = dispatch.next()
    assert found is not None
    assert found[0].epoch == 5
    assert found[1] == saved
    dispatch.started(0)
    assert heard.words[-1] == ("started", saved.trial, 5)
    assert dispatch.error is None


def test_lack_of_gpu_memory_doubles_the_share_until_the_trial_has_a_whole_one() -> None:
    dispatch, heard = dispatched(1, gpus=1.0)
    dispatch.share((0.25,))
    shares = []
    while (found := dispatch.next()) is not None:
        shares.append(found[0].gpus)
        dispatch.started(0)
        dispatch.heard(0, Step(outcome=failure(dispatch, 0, Cause.GPU_MEMORY)))
    assert shares == [0.25, 0.5, 1.0]
    assert heard.words[-1][0] == "failed"


def test_a_word_of_a_trial_that_has_ended_changes_nothing() -> None:
    dispatch, heard = dispatched(1, max_failures=3)
    start(dispatch)
    dispatch.heard(0, Step(outcome=record(dispatch, 0)))
    before = list(heard.words)
    dispatch.died(0, "The actor died unexpectedly", "")
    dispatch.heard(0, Step((row(1),), record(dispatch, 0)))
    assert heard.words == before
    assert dispatch.error is None
    assert dispatch.next() is None


def test_what_the_observer_raises_is_kept_and_no_fault_of_the_trial() -> None:
    dispatch, heard = dispatched(1)
    start(dispatch)
    heard.full = True
    dispatch.heard(0, Step((row(0),)))
    assert isinstance(dispatch.error, OSError)
    assert not [word for word in heard.words if word[0] in ("failed", "retried")]


def test_a_worker_that_can_no_longer_save_ends_the_sweep() -> None:
    dispatch, _ = dispatched(1)
    start(dispatch)
    dispatch.heard(0, Step(lost="/storage: no space left"))
    assert isinstance(dispatch.error, LostError)


def test_every_running_trial_is_waited_for_when_they_save_themselves() -> None:
    dispatch, _ = dispatched(3)
    start(dispatch)
    start(dispatch)
    dispatch.closed = True
    assert dispatch.next() is None
    dispatch.heard(0, Step(saved=True))
    assert not dispatch.all_saved
    dispatch.heard(1, Step(outcome=record(dispatch, 1)))
    assert dispatch.all_saved


def test_the_next_job_is_asked_for_when_every_trial_has_ended_or_waits() -> None:
    asked = []
    heard = Heard()

    def stages() -> Iterator[tuple[Job, Heard]]:
        asked.append(1)
        yield job(1), heard

    dispatch = Dispatch(job(2), heard, stages(), 0.0)
    start(dispatch)
    start(dispatch)
    dispatch.heard(0, Step(outcome=TrialPause(dispatch.job.trials[0].id, ())))
    assert dispatch.next() is None
    assert not asked
    dispatch.heard(1, Step(outcome=record(dispatch, 1)))
    assert start(dispatch) == 0
    # What goes on after its pause is the same attempt.
    dispatch.heard(0, Step(outcome=record(dispatch, 0)))
    assert heard.words[-1] == ("finished", dispatch.job.trials[0].id, 1)
    assert dispatch.next() is None
    assert dispatch.over
    assert dispatch.error is None


def test_a_job_of_other_features_is_left_to_other_workers() -> None:
    other = LogMelSpec(n_mels=8, seconds=1.0)
    following = job(1, arrays={other: np.zeros((1, 8, 4), np.float32)}), Heard()
    dispatch, _ = dispatched(1, stages=[following])
    start(dispatch)
    dispatch.heard(0, Step(outcome=record(dispatch, 0)))
    assert dispatch.next() is None
    assert dispatch.over
    assert dispatch.following is following


def test_long_waiting_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(dispatch_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    dispatch, heard = dispatched(1)
    # Trying trials out on a GPU may take minutes.
    now[0] += 300
    dispatch.share((0.5,))
    told = []
    for _ in range(5):
        now[0] += 30
        dispatch.passes()
        told.append(len(heard.words))
    assert told == [0, 0, 1, 1, 2]
    start(dispatch)
    now[0] += 300
    dispatch.passes()
    assert heard.words[-1][0] == "started"


def test_a_hang_is_told_with_what_the_process_was_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(dispatch_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    dispatch, heard = dispatched(1, timeout=5.0)
    failures: list[TrialFailure] = []
    monkeypatch.setattr(heard, "failed", failures.append)
    start(dispatch)
    now[0] += 6
    dispatch.died(0, "The actor died unexpectedly", "Thread 1: in forward")
    assert failures[0].cause is Cause.TIMEOUT
    assert failures[0].traceback == "Thread 1: in forward\nThe actor died unexpectedly"


def test_an_estimator_gets_no_gpu() -> None:
    assert dispatch_module.whole(job(2), 1.0) == (1.0, 1.0)
    fitted = Configuration(features=FEATURES, model=Cnn1dSpec(), train=None)
    mixed = (*trials(1), Trial(fitted, 1, 2, 0))
    assert dispatch_module.whole(job(trials=mixed), 1.0) == (1.0, 0.0)
