"""A trial from its inputs to its record: equal wherever it runs, every fault a failure."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.spec import LogMelSpec, WaveformSpec, Windows
from models.spec import Cnn1dSpec, CnnTransformerSpec, FactorySpec, InputSpec, ModelSpec
from orchestrator.checkpoint import Checkpoint
from orchestrator.envelope import DamagedFileError
from orchestrator.error_line import LONGEST, error_line, plain_line
from orchestrator.hyperparameters import SgdSpec, TrainSpec
from orchestrator.records import Cause, TrialFailure, TrialRecord
from orchestrator.training import SplitData
from orchestrator.trial import TrialInput, TrialRun, run_trial
from orchestrator.trials import Configuration, Trial

FEATURES = LogMelSpec(n_mels=4, seconds=1.0)

NETS = """
import random
import sys
import time
from pathlib import Path
import numpy as np
import torch
from torch import nn

torch.rand(17), random.random(), np.random.rand()  # an import that draws

def flat(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], classes))

class Faulty(nn.Module):
    def __init__(self, inner, fault):
        super().__init__()
        self.inner, self.fault = inner, fault

    def forward(self, features):
        logits = self.inner(features)
        if not self.training or self.fault == "none":
            return logits
        if self.fault == "raise":
            raise ValueError(f"cannot open '{Path.home()}/some data/a.wav' (pid=12)\\nmore")
        if self.fault == "exit":
            sys.exit(4)
        if self.fault == "hang":
            time.sleep(1000)
        while self.fault == "hang for all that":
            try:
                time.sleep(1000)
            except Exception:
                pass
        if self.fault == "memory":
            torch.empty(2**60)
        if self.fault == "gpu memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if self.fault == "gpu context":
            raise RuntimeError("CUDA error: out of memory\\nCUDA kernel errors might be")
        if self.fault == "interrupt":
            raise KeyboardInterrupt
        if self.fault == "wide":
            return torch.cat([logits, logits], dim=1)
        if self.fault == "nan":
            return logits * float("nan")
        if self.fault == "terminated":
            error = SystemExit(1)
            error.ray_terminate_msg = "The process receives a SIGTERM."
            raise error

def faulty(input_shape, classes, fault):
    if fault == "build":
        raise RuntimeError("no such weights")
    return Faulty(flat(input_shape, classes), fault)

class Noisy(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, features):
        if self.training:
            features = features * (random.random() + np.random.rand() + torch.rand(1))
        return self.inner(features)

def noisy(input_shape, classes):
    return Noisy(flat(input_shape, classes))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a user's models, forgotten after the test."""
    (tmp_path / "trial_nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("trial_nets", None)


def make_input(
    model: ModelSpec | None = None, folder: Path | None = None, **train: Any
) -> TrialInput:
    """Thirty clips in three classes; the test fold is 1, the validation fold 2."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((30, *FEATURES.shape), dtype=np.float32)
    labels = np.arange(30) % 3
    features[np.arange(30), labels] += 1.0
    features.flags.writeable = False
    spec = TrainSpec(**{"epochs": 2, "batch_size": 4, **train})
    configuration = Configuration(FEATURES, model or Cnn1dSpec(), spec)
    rows = np.arange(30)
    return TrialInput(
        trial=Trial(configuration, test_fold=1, fold=2, seed=0),
        features=features,
        labels=labels,
        split=SplitData(rows[:15], rows[15:23], rows[23:]),
        classes=3,
        import_path=() if folder is None else (folder,),
    )


def users(name: str, folder: Path, **params: Any) -> TrialInput:
    return make_input(FactorySpec(name=f"trial_nets:{name}", params=params), folder)


def finished(trial_input: TrialInput) -> TrialRecord:
    outcome = run_trial(trial_input)
    assert isinstance(outcome, TrialRecord), outcome
    return outcome


def failed(trial_input: TrialInput) -> TrialFailure:
    outcome = run_trial(trial_input)
    assert isinstance(outcome, TrialFailure)
    return outcome


def untimed(record: TrialRecord) -> dict[str, Any]:
    """Everything that equal runs share."""
    data = record.to_json()
    del data["timing"]
    return data


# The course of a trial


def test_a_trial_goes_epoch_by_epoch_to_its_record() -> None:
    run = TrialRun(make_input(epochs=3))
    rows = []
    for epoch in range(3):
        assert run.outcome is None
        row = run.step()
        assert row is not None
        assert row.epoch == epoch
        rows.append(row)
    record = run.outcome
    assert isinstance(record, TrialRecord)
    assert run.step() is None
    assert run.outcome is record
    assert record.epochs == tuple(rows)
    assert record.epoch == 2
    assert record.test is not None
    assert record.val.predictions.clips == tuple(range(15, 23))
    assert record.test.predictions.clips == tuple(range(23, 30))
    assert record.parameters.total == record.parameters.trainable == 549_891
    assert TrialRecord.from_json(record.to_json()) == record


def test_run_trial_tells_of_every_epoch() -> None:
    rows: list[int] = []
    run_trial(make_input(epochs=3), lambda row: rows.append(row.epoch))
    assert rows == [0, 1, 2]


def test_timing_is_honest() -> None:
    before = datetime.now(UTC)
    timing = finished(make_input()).timing
    started = datetime.fromisoformat(timing.started)
    assert before <= started <= datetime.now(UTC)
    assert started.utcoffset() is not None
    assert timing.started[19] == "."
    assert 0 < timing.train_seconds <= timing.wall_seconds < 60
    assert timing.attempts == 1
    assert timing.device == "cpu"
    assert timing.host


def test_threads_are_the_callers_again() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        finished(make_input())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (LogMelSpec(), InputSpec("bands", (80, 157))),
        (WaveformSpec(), InputSpec("samples", (1, 80_000))),
        (
            WaveformSpec(windows=Windows(seconds=1.0, hop=0.5)),
            InputSpec("samples", (9, 16_000)),
        ),
    ],
)
def test_what_a_model_sees_of_features(features: Any, expected: InputSpec) -> None:
    assert Configuration(features, Cnn1dSpec(), TrainSpec()).inputs == expected


# Equal inputs, equal records


@pytest.mark.parametrize("model", [Cnn1dSpec(), CnnTransformerSpec(heads=2, dropout=0.3)])
def test_a_trial_is_the_same_bit_by_bit(model: ModelSpec) -> None:
    given = make_input(model, select="best", epochs=3)
    first = untimed(finished(given))
    finished(make_input(CnnTransformerSpec(heads=1, init="kaiming"), batch_size=7, epochs=1))
    random.random(), np.random.rand(), torch.rand(5)
    torch.set_num_threads(torch.get_num_threads())
    assert untimed(finished(given)) == first


def test_a_trial_is_the_same_beside_another() -> None:
    """Two trials in turn, epoch by epoch, in one process."""
    given, other = make_input(CnnTransformerSpec(), epochs=3), make_input(batch_size=5, epochs=3)
    alone = untimed(finished(given))
    runs = [TrialRun(given), TrialRun(other)]
    for _ in range(3):
        for run in runs:
            run.step()
    record = runs[0].outcome
    assert isinstance(record, TrialRecord)
    assert untimed(record) == alone


def test_where_the_features_lie_changes_nothing() -> None:
    given = make_input()
    buffer = np.empty(given.features.nbytes + 4, np.uint8)
    shifted = buffer[4:].view(np.float32).reshape(given.features.shape)
    shifted[:] = given.features
    assert untimed(finished(replace(given, features=shifted))) == untimed(finished(given))


def test_features_and_labels_are_not_written_to() -> None:
    given = make_input()
    features, labels = given.features.copy(), given.labels.copy()
    finished(given)
    assert np.array_equal(given.features, features)
    assert np.array_equal(given.labels, labels)


def test_a_users_model_draws_the_same_from_every_generator(folder: Path) -> None:
    given = users("noisy", folder)
    first = untimed(finished(given))  # imports the module, which draws
    assert untimed(finished(given)) == first


def test_seed_and_folds_change_the_draws_and_the_configuration_does_not() -> None:
    base = make_input()

    def first_row(trial: Trial) -> tuple[float, float]:
        row = TrialRun(replace(base, trial=trial)).step()
        assert row is not None
        return row.train_loss, row.val_loss

    rows = {
        first_row(replace(base.trial, **change))
        for change in ({}, {"seed": 1}, {"fold": 3}, {"test_fold": None}, {"test_fold": 4})
    }
    assert len(rows) == 5
    # Another selection is another configuration with the same course.
    best = make_input(select="best").trial
    assert best.configuration.id != base.trial.configuration.id
    assert first_row(best) in rows


def test_configurations_start_from_equal_weights_and_orders() -> None:
    """With a rate too small to move a weight, other rates and decays give the same epoch."""
    rows = []
    for optimizer in (SgdSpec(lr=1e-30), SgdSpec(lr=1e-29, momentum=0.5, weight_decay=0.1)):
        row = TrialRun(make_input(optimizer=optimizer)).step()
        assert row is not None
        rows.append((row.train_loss, row.train_accuracy, row.val_loss))
    assert rows[0] == rows[1]


# Faults


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("build", "RuntimeError: no such weights"),
        ("raise", "ValueError: cannot open 'a.wav' (pid)"),
        ("exit", "SystemExit: 4"),
        ("wide", "ValueError: model gave logits [4, 6], expected [4, 3]"),
        ("nan", "NonFiniteLoss: loss is nan in epoch 0 (lr 0.01)"),
    ],
)
def test_a_fault_of_the_model_is_a_failure(folder: Path, fault: str, error: str) -> None:
    given = users("faulty", folder, fault=fault)
    failure = failed(given)
    assert failure.error == error
    assert failure.trial == given.trial.id
    assert failure.traceback.startswith("Traceback (most recent call last):")
    assert "trial_nets.py" in failure.traceback or fault in ("wide", "nan")
    assert 0 < failure.timing.train_seconds <= failure.timing.wall_seconds


def test_a_fault_in_a_later_epoch_leaves_no_record(folder: Path) -> None:
    (folder / "trial_nets.py").write_text(
        NETS
        + """
class Late(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.evaluations = inner, 0

    def forward(self, features):
        if not self.training:
            self.evaluations += 1
        if self.evaluations > 3:
            raise OSError("late")
        return self.inner(features)

def late(input_shape, classes):
    return Late(flat(input_shape, classes))
""",
        encoding="utf-8",
    )
    run = TrialRun(users("late", folder))
    # The check while building and one evaluation an epoch: the test split is the fourth.
    assert run.step() is not None
    assert run.step() is None
    assert isinstance(run.outcome, TrialFailure)
    assert run.outcome.error == "OSError: late"
    assert run.step() is None


def test_a_missing_module_is_a_failure() -> None:
    failure = failed(make_input(FactorySpec(name="nowhere_nets:make")))
    assert failure.error.startswith("FactoryError: module nowhere_nets not found")


def test_the_next_trial_is_not_touched_by_a_failed_one(folder: Path) -> None:
    before = untimed(finished(make_input()))
    failed(users("faulty", folder, fault="raise"))
    assert untimed(finished(make_input())) == before


def test_an_interrupt_is_passed_on(folder: Path) -> None:
    run = TrialRun(users("faulty", folder, fault="interrupt"))
    with pytest.raises(KeyboardInterrupt):
        run.step()
    assert run.outcome is None


def test_a_worker_that_is_taken_down_is_no_failure(folder: Path) -> None:
    run = TrialRun(users("faulty", folder, fault="terminated"))
    with pytest.raises(SystemExit):
        run.step()
    assert run.outcome is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_failure() -> None:
    failure = failed(replace(make_input(), gpus=1))
    assert (
        failure.error == "RuntimeError: the trial was given 1 GPU, but torch finds no CUDA device"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", [Cnn1dSpec(), CnnTransformerSpec()])
def test_a_trial_on_a_gpu(model: ModelSpec) -> None:
    given = replace(make_input(model, deterministic=True), gpus=0.5)
    first, second = finished(given), finished(given)
    assert untimed(first) == untimed(second)
    assert first.timing.device == torch.cuda.get_device_name(0)


# Error lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("no file /home/ann/x/y.wav here", "no file y.wav here"),
        ("no file '/home/ann/my data/y.wav'", "no file 'y.wav'"),
        ('File "/a/b/c.py", line 3', 'File "c.py", line 3'),
        ("PosixPath('/a/b')", "PosixPath('b')"),
        ("(/a/b/c.txt)", "(c.txt)"),
        ("/a/b/", "b"),
        ("~/data/x.csv", "x.csv"),
        ("file:///a/b.txt", "b.txt"),
        (
            "see https://host/a/b and a/b or 3/4 or 1 / 2",
            "see https://host/a/b and a/b or 3/4 or 1 / 2",
        ),
        ("<Net object at 0x7f12ab> failed", "<Net object> failed"),
        ("address 0xdeadbeef", "address"),
        ("worker pid=123 died (pid 4, PID: 5)", "worker pid died (pid, PID)"),
        ("Process 1234 has 3 GiB in use", "Process has 3 GiB in use"),
        ("rapid 12 of 13", "rapid 12 of 13"),
        ("shapes [16, 7] and  0.5", "shapes [16, 7] and 0.5"),
    ],
)
def test_lines_without_what_differs_between_runs(text: str, expected: str) -> None:
    assert plain_line(text) == expected


def test_error_lines() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    assert error_line(ValueError()) == "ValueError"
    assert error_line(ValueError("\n first\nsecond")) == "ValueError: first"
    assert error_line(SystemExit()) == "SystemExit"
    assert error_line(Mute()) == "Mute"
    long = error_line(ValueError("x" * 1000))
    assert len(long) == LONGEST
    assert long.endswith("...")


# Checkpoints

HARD: dict[str, Any] = {
    "epochs": 6,
    "optimizer": {"name": "adamw", "lr": 0.003},
    "select": "best",
    "early_stopping": {"patience": 4, "metric": "val_accuracy"},
    "augment": {"mixup": 0.4, "gain": 6, "spec_augment": True},
    "label_smoothing": 0.1,
}
SCHEDULES = ("plateau", "one_cycle", "cosine", {"name": "step", "milestones": [2, 4]}, None)


def gone_on_with(trial_input: TrialInput, epoch: int) -> TrialRecord:
    """Run until so many epochs are done, then go on in another run from the bytes of a file."""
    run = TrialRun(replace(trial_input, checkpoint_every=epoch))
    for _ in range(epoch):
        run.step()
    checkpoint = run.checkpoint()
    assert checkpoint is not None
    assert checkpoint.epoch == epoch
    read = Checkpoint.from_bytes(checkpoint.to_bytes(), trial_input.trial.id)
    rows: list[int] = []
    outcome = run_trial(replace(trial_input, checkpoint=read), lambda row: rows.append(row.epoch))
    assert isinstance(outcome, TrialRecord), outcome
    assert rows[0] == epoch
    return outcome


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_trial_goes_on_from_a_checkpoint_as_if_nothing_had_been(schedule: Any) -> None:
    model = CnnTransformerSpec(heads=2, dropout=0.3)
    made = make_input(model, **HARD, schedule=schedule)
    whole = finished(made)
    for epoch in (1, 3, 4):
        record = gone_on_with(made, epoch)
        assert untimed(record) == untimed(whole)
        assert record.timing.attempts == 2


def test_a_users_model_that_draws_goes_on_with_equal_draws(folder: Path) -> None:
    made = users("noisy", folder)
    assert untimed(gone_on_with(made, 1)) == untimed(finished(made))


def test_checkpoints_are_due_every_so_many_epochs() -> None:
    run = TrialRun(replace(make_input(epochs=7), checkpoint_every=3))
    epochs = []
    while run.outcome is None:
        run.step()
        checkpoint = run.checkpoint()
        epochs += [] if checkpoint is None else [checkpoint.epoch]
    assert epochs == [3, 6]


def test_a_checkpoint_can_be_had_at_once_but_not_twice() -> None:
    run = TrialRun(replace(make_input(epochs=3), checkpoint_every=100))
    assert run.checkpoint(now=True) is None
    run.step()
    assert run.checkpoint() is None
    assert run.checkpoint(now=True) is not None
    assert run.checkpoint(now=True) is None


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_checkpoint_is_never_believed(data: st.DataObject) -> None:
    whole = Checkpoint("a-t1-f2-s0", 7, b"some payload" * 3).to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[at] ^ data.draw(st.integers(1, 255))
    for damaged in (whole[:at], whole[:at] + bytes([flipped]) + whole[at + 1 :]):
        with contextlib.suppress(DamagedFileError):
            assert Checkpoint.from_bytes(damaged, "a-t1-f2-s0").to_bytes() == whole
    with pytest.raises(DamagedFileError, match="a-t1-f2-s0"):
        Checkpoint.from_bytes(whole, "another")


def test_a_whole_checkpoint_of_another_kind_of_state_begins_anew() -> None:
    made = make_input()
    strange = Checkpoint(made.trial.id, 1, b"no torch file")
    assert untimed(finished(replace(made, checkpoint=strange))) == untimed(finished(made))


# Deadlines


def test_a_hanging_trial_fails_in_time(folder: Path) -> None:
    made = users("faulty", folder, fault="hang")
    stubborn = users("faulty", folder, fault="hang for all that")
    assert failed(replace(stubborn, timeout=0.5)).cause is Cause.TIMEOUT
    failure = failed(replace(made, timeout=0.5))
    assert failure.cause is Cause.TIMEOUT
    assert failure.error == "TrialTimeout: no end within 0.5 s (execution.trial_timeout)"
    assert "in forward" in failure.traceback
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_memory_that_runs_out_is_told_apart(folder: Path) -> None:
    assert failed(users("faulty", folder, fault="memory")).cause is Cause.MEMORY
    assert failed(users("faulty", folder, fault="gpu memory")).cause is Cause.GPU_MEMORY
    assert failed(users("faulty", folder, fault="gpu context")).cause is Cause.GPU_MEMORY
    assert failed(users("faulty", folder, fault="raise")).cause is Cause.OWN
