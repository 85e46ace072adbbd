"""Learning rates over a training, early stopping, and how a specification asks for them."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orchestrator.hyperparameters import TrainSpec
from orchestrator.schedules import Schedule


def rates(spec: Any, epochs: int, batches: int = 3, losses: list[float] | None = None) -> Any:
    """The rate of each step, a list an epoch, from a rate of 0.1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    train = TrainSpec(epochs=epochs, schedule=spec, optimizer={"name": "sgd", "lr": 0.1})
    schedule = Schedule(train.schedule, optimizer, epochs, batches)
    found = []
    for epoch in range(epochs):
        found.append([])
        for _ in range(batches):
            found[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_batch()
        schedule.after_epoch(losses[epoch] if losses else 1.0)
    return found


def test_no_schedule_leaves_the_rate() -> None:
    assert rates(None, 3) == [[0.1] * 3] * 3


def test_forty_five_epochs_and_twenty_more_at_a_tenth() -> None:
    found = rates({"name": "step", "milestones": [45], "gamma": 0.1}, 65)
    assert [epoch for epoch in range(65) if found[epoch] == [0.1] * 3] == list(range(45))
    assert all(rate == pytest.approx(0.01) for epoch in found[45:] for rate in epoch)


def test_a_cosine_goes_down_to_its_floor_an_epoch_at_a_time() -> None:
    found = rates({"name": "cosine", "min_lr": 0.02}, 10)
    for epoch, steps in enumerate(found):
        expected = 0.02 + 0.08 * (1 + math.cos(math.pi * epoch / 10)) / 2
        assert steps == [pytest.approx(expected)] * 3


def test_one_cycle_goes_up_and_down_within_epochs() -> None:
    steps = [rate for epoch in rates({"name": "one_cycle"}, 10, batches=10) for rate in epoch]
    top = steps.index(max(steps))
    assert steps[0] == pytest.approx(0.1 / 25)
    assert max(steps) == pytest.approx(0.1, rel=1e-3)
    assert 28 <= top <= 31
    assert steps[:top] == sorted(steps[:top])
    assert steps[top:] == sorted(steps[top:], reverse=True)
    assert steps[-1] == pytest.approx(0.1 / 25 / 1e4)


@given(
    epochs=st.integers(1, 30),
    batches=st.integers(1, 5),
    share=st.sampled_from([0.01, 0.1, 0.25, 0.3, 0.5, 0.99]),
)
@settings(max_examples=60, deadline=None)
def test_one_cycle_takes_any_length(epochs: int, batches: int, share: float) -> None:
    found = rates({"name": "one_cycle", "pct_start": share}, epochs, batches)
    assert all(0 < rate <= 0.1 * (1 + 1e-6) for epoch in found for rate in epoch)


def test_a_plateau_of_the_validation_loss_lowers_the_rate() -> None:
    losses = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0]
    found = rates({"name": "plateau", "patience": 1, "factor": 0.5}, 6, losses=losses)
    assert [epoch[0] for epoch in found] == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]


def test_a_schedule_goes_on_from_its_state() -> None:
    def fresh() -> tuple[torch.optim.Optimizer, Schedule]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        spec = TrainSpec(schedule={"name": "one_cycle"}).schedule
        return optimizer, Schedule(spec, optimizer, 10, 3)

    optimizer, schedule = fresh()
    for _ in range(7):
        optimizer.step()
        schedule.after_batch()
    other, resumed = fresh()
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for one, its in ((optimizer, schedule), (other, resumed)):
        one.step()
        its.after_batch()
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def epochs_of(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "tables" / "epochs.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def train(**changes: Any) -> dict[str, Any]:
    return {"epochs": 4, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.01}} | changes


def test_the_tables_show_the_rate_of_each_epoch(
    foldgrid: Any, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    schedule = {"grid": [None, {"name": "step", "milestones": [2]}]}
    spec = write_spec(
        model={"name": "cnn1d"}, train=train(schedule=schedule), folds={"test": 1, "validate": [2]}
    )
    result = foldgrid("run", spec, "--out", tmp_path / "out", "--executor", "serial", "--quiet")
    assert result.code == 0, result.err
    found = [float(row["lr"]) for row in epochs_of(tmp_path / "out")]
    assert found == pytest.approx([0.01] * 4 + [0.01, 0.01, 0.001, 0.001])
    header = (tmp_path / "out" / "tables" / "trials.csv").read_text().splitlines()[0].split(",")
    assert header[5:8] == [
        "train.schedule.name",
        "train.schedule.milestones",
        "train.schedule.gamma",
    ]


def test_early_stopping_ends_a_training_and_its_row_counts(
    foldgrid: Any, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    # A rate of next to nothing: no epoch is better than the first by a whole unit of loss.
    stopping = {"patience": 2, "min_delta": 1.0}
    spec = write_spec(
        model={"name": "cnn1d"},
        train=train(epochs=9, early_stopping=stopping, optimizer={"name": "sgd", "lr": 1e-9}),
        folds={"test": 1, "validate": [2]},
    )
    result = foldgrid("run", spec, "--out", tmp_path / "out", "--executor", "serial", "--quiet")
    assert result.code == 0, result.err
    assert [row["epoch"] for row in epochs_of(tmp_path / "out")] == ["0", "1", "2"]
    with (tmp_path / "out" / "tables" / "trials.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["epoch"] == "2"
    assert row["status"] == "finished"


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy"])
def test_early_stopping_waits_while_it_gets_better(
    metric: str, write_spec: Any, foldgrid: Any, tmp_path: Path
) -> None:
    spec = write_spec(
        model={"name": "cnn1d"},
        train=train(epochs=3, early_stopping={"patience": 3, "metric": metric}),
        folds={"test": 1, "validate": [2]},
    )
    result = foldgrid("run", spec, "--out", tmp_path / "out", "--executor", "serial", "--quiet")
    assert result.code == 0, result.err
    assert len(epochs_of(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"schedule": "cosin"}, "cosin"),
        (
            {"schedule": {"milestones": [3]}},
            "train.schedule.name: found nothing; allowed step, cosine, one_cycle, plateau",
        ),
        (
            {"schedule": {"name": "step", "milestones": [1.5]}},
            "train.schedule.milestones.0: found 1.5; allowed a whole number from 1 to 1000000",
        ),
        (
            {"schedule": {"name": "step", "milestones": []}},
            "train.schedule.milestones: found []; allowed a list of at least one of whole numbers",
        ),
        (
            {"schedule": {"name": "cosine", "min_lr": 0.1}},
            "train.schedule.min_lr: found 0.1; allowed at most the optimizer's lr, 0.01",
        ),
        ({"schedule": {"name": "step"}}, "train.schedule.milestones: found nothing"),
        (
            {"schedule": {"name": "step", "milestones": [5, 3]}},
            "train.schedule.milestones.1: found 3; allowed an epoch after 5",
        ),
        ({"schedule": {"name": "step", "milestones": 45}}, "train.schedule.milestones: found 45"),
        ({"schedule": {"name": "cosine", "gamma": 0.5}}, "unknown key 'gamma'"),
        ({"schedule": {"name": "one_cycle", "pct_start": 1.0}}, "pct_start: found 1.0"),
        ({"early_stopping": {"patience": 0}}, "train.early_stopping.patience: found 0"),
        ({"early_stopping": {"metric": "test_loss"}}, "train.early_stopping.metric"),
        ({"precision": "fp16"}, "train.precision: found 'fp16'; allowed float32, bf16"),
    ],
)
def test_what_a_schedule_cannot_be(
    changes: dict[str, Any], error: str, foldgrid: Any, write_spec: Callable[..., Path]
) -> None:
    result = foldgrid("plan", write_spec(train=train(**changes)))
    assert result.code == 2
    assert error in result.err
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 1


def test_a_schedule_may_be_named_alone(foldgrid: Any, write_spec: Callable[..., Path]) -> None:
    short = foldgrid("plan", write_spec(train=train(schedule="cosine")), "--json")
    full = foldgrid("plan", write_spec(train=train(schedule={"name": "cosine"})), "--json")
    assert short.code == 0
    assert short.out == full.out


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"schedule": "cosine"}, {"schedule": {"name": "cosine", "min_lr": 0.0}}),
        ({"augment": {"spec_augment": True}}, {"augment": {"spec_augment": {}, "mixup": None}}),
        ({"early_stopping": {}}, {"early_stopping": {"patience": 10}}),
    ],
)
def test_a_specification_in_other_words_continues_the_run(
    first: dict[str, Any],
    second: dict[str, Any],
    foldgrid: Any,
    write_spec: Callable[..., Path],
    tmp_path: Path,
) -> None:
    rest = {"model": {"name": "cnn1d"}, "folds": {"test": 1, "validate": [2]}}
    out = tmp_path / "out"
    for changes in (first, second):
        spec = write_spec(train=train(epochs=1, **changes), **rest)
        result = foldgrid("run", spec, "--out", out, "--executor", "serial", "--quiet")
        assert result.code == 0, result.err


def test_a_grid_whose_values_are_equal_once_filled_in_runs_from_its_copy(
    foldgrid: Any, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    optimizers = [{"name": "sgd"}, {"name": "sgd", "lr": 0.01}, {"name": "adam"}]
    spec = write_spec(
        model={"name": "cnn1d"},
        train={"epochs": 1, "batch_size": 8, "optimizer": {"grid": optimizers}},
        folds={"test": 1, "validate": [2]},
    )
    out = tmp_path / "out"
    assert foldgrid("run", spec, "--out", out, "--executor", "serial", "--quiet").code == 0
    again = foldgrid("run", out / "spec.yaml", "--out", out, "--executor", "serial", "--quiet")
    assert again.code == 0, again.err
    assert "2 of 2 trials finished" in again.out
