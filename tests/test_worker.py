"""A worker: one trial after another, in steps. Without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.spec import LogMelSpec
from models.spec import Cnn1dSpec
from orchestrator import worker as worker_module
from orchestrator.checkpoint import read_checkpoint, storage_file
from orchestrator.hyperparameters import TrainSpec
from orchestrator.records import TrialFailure, TrialRecord
from orchestrator.training import SplitData
from orchestrator.trial import TrialInput, run_trial
from orchestrator.trials import Configuration, Trial
from orchestrator.worker import Step, Worker

FEATURES = LogMelSpec(n_mels=4, seconds=1.0)


def given(epochs: int = 3, **changes: object) -> TrialInput:
    """Thirty clips in three classes."""
    rng = np.random.default_rng(0)
    rows = np.arange(30)
    configuration = Configuration(FEATURES, Cnn1dSpec(), TrainSpec(epochs=epochs, batch_size=4))
    made = {
        "trial": Trial(configuration, test_fold=1, fold=2, seed=0),
        "features": rng.standard_normal((30, *FEATURES.shape), dtype=np.float32),
        "labels": rows % 3,
        "split": SplitData(rows[:15], rows[15:23], rows[23:]),
        "classes": 3,
    }
    return TrialInput(**(made | changes))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every epoch of these trials, on whatever machine."""
    monkeypatch.setattr(worker_module, "_FIRST_STEP_SECONDS", 1000.0)


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., None]:
    """Give a worker a trial."""

    def begin(worker: Worker, trial: TrialInput, storage: Path | None = None) -> None:
        stacks = tmp_path / "stacks.txt"
        worker.begin(lambda: trial, storage=storage, timeout=None, stacks=stacks)

    return begin


def steps(worker: Worker) -> list[Step]:
    """Steps to the end of the trial."""
    found = [worker.step()]
    while not found[-1].last:
        found.append(worker.step())
    return found


def test_the_steps_of_a_trial_are_its_epochs_and_its_record(
    begin: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_STEP_SECONDS", 0.0)
    monkeypatch.setattr(worker_module, "_STEP_SECONDS", 0.0)
    worker = Worker(lambda: False)
    begin(worker, given())
    found = steps(worker)
    assert [[row.epoch for row, _ in step.rows] for step in found] == [[0], [1], [2]]
    outcome, expected = found[-1].outcome, run_trial(given())
    assert isinstance(outcome, TrialRecord)
    assert isinstance(expected, TrialRecord)
    assert outcome.epochs == expected.epochs
    assert outcome.test == expected.test


def test_a_step_runs_as_many_epochs_as_fit_and_the_first_one_of_a_trial_few(
    begin: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_STEP_SECONDS", 0.0)
    monkeypatch.setattr(worker_module, "_STEP_SECONDS", 1000.0)
    worker = Worker(lambda: False)
    for _ in range(2):
        begin(worker, given())
        assert [[row.epoch for row, _ in s.rows] for s in steps(worker)] == [[0], [1, 2]]


def test_one_trial_after_another(begin: Callable[..., None]) -> None:
    worker = Worker(lambda: False)
    broken = given(labels=np.full(30, 7))
    for trial, kind in ((given(), TrialRecord), (broken, TrialFailure), (given(), TrialRecord)):
        begin(worker, trial)
        assert isinstance(steps(worker)[-1].outcome, kind)


def test_a_due_checkpoint_ends_a_step_and_another_worker_goes_on_from_it(
    begin: Callable[..., None],
) -> None:
    first, second = Worker(lambda: False), Worker(lambda: False)
    begin(first, given(4, checkpoint_every=2))
    saved = first.step().checkpoint
    assert saved is not None
    assert saved.epoch == 2
    begin(second, given(4, checkpoint=saved))
    (step,) = steps(second)
    assert [row.epoch for row, _ in step.rows] == [2, 3]
    expected = run_trial(given(4))
    assert isinstance(step.outcome, TrialRecord)
    assert isinstance(expected, TrialRecord)
    assert step.outcome.epochs == expected.epochs


@pytest.mark.parametrize("stored", [False, True])
def test_a_worker_that_is_told_to_saves_and_runs_no_more(
    begin: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored: bool
) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_STEP_SECONDS", 0.0)
    told, trial = [False], given(4)
    worker = Worker(lambda: told[0])
    begin(worker, trial, tmp_path if stored else None)
    worker.step()
    told[0] = True
    step = worker.step()
    assert step.saved
    assert not step.rows
    assert not step.last
    saved = step.checkpoint
    if stored:
        assert saved is None
        saved = read_checkpoint(storage_file(tmp_path, trial.trial.id), trial.trial.id)
    assert saved is not None
    assert saved.epoch == 1
    assert worker.step().checkpoint is None, "there is nothing new to save"


def test_a_worker_whose_trial_cannot_be_fetched_has_none(
    begin: Callable[..., None], tmp_path: Path
) -> None:
    def lost() -> TrialInput:
        raise OSError("gone")

    worker = Worker(lambda: False)
    begin(worker, given())
    steps(worker)
    with pytest.raises(OSError, match="gone"):
        worker.begin(lost, storage=None, timeout=None, stacks=tmp_path / "stacks.txt")
    with pytest.raises(RuntimeError, match="without a trial"):
        worker.step()


def test_with_a_storage_checkpoints_go_there(begin: Callable[..., None], tmp_path: Path) -> None:
    worker, trial = Worker(lambda: False), given(4, checkpoint_every=2)
    begin(worker, trial, tmp_path)
    assert worker.step().checkpoint is None
    saved = read_checkpoint(storage_file(tmp_path, trial.trial.id), trial.trial.id)
    assert saved is not None
    assert saved.epoch == 2


def test_a_storage_that_cannot_be_written_to_is_no_fault_of_the_trial(
    begin: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    worker = Worker(lambda: False)
    begin(worker, given(4, checkpoint_every=2), tmp_path / "file")
    step = worker.step()
    assert step.lost
    assert step.last
    assert step.outcome is None


def test_a_worker_without_a_trial_says_so() -> None:
    with pytest.raises(RuntimeError, match="without a trial"):
        Worker(lambda: False).step()
