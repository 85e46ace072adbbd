"""Weights beside the records: whose stay, that they are whole, and equal wherever trials ran."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from features.spec import LogMelSpec
from models.spec import Cnn1dSpec
from models.weights import WeightsError, read_weights, weights_bytes
from orchestrator.configuration_scores import best_configuration, metric_of
from orchestrator.hyperparameters import SgdSpec, TrainSpec
from orchestrator.kept_weights import KeptWeights
from orchestrator.ledger import Ledger
from orchestrator.records import (
    EpochRow,
    ParameterCount,
    Predictions,
    Scores,
    SplitResult,
    Timing,
    TrialRecord,
    Weights,
)
from orchestrator.trials import Configuration, Plan, Trial

SERIAL = ("--executor", "serial", "--quiet")


def kept(run_dir: Path) -> dict[str, bytes]:
    """The weights on disk by trial."""
    paths = sorted((run_dir / "trials").glob("*/weights.safetensors"))
    return {path.parent.name: path.read_bytes() for path in paths}


def best_of(output: str) -> str:
    line = next(x for x in output.splitlines() if x.startswith("best configuration: "))
    return line.split()[2]


class TestFiles:
    def net(self) -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2))
        net.to(memory_format=torch.channels_last)
        net.register_buffer("small", torch.ones(3, dtype=torch.bfloat16))
        net.register_buffer("nothing", torch.empty(0, 2))
        net.append(net[2])  # the same weights under two names
        return net

    def test_every_tensor_reads_back_equal(self, tmp_path: Path) -> None:
        net, path = self.net(), tmp_path / "net.safetensors"
        path.write_bytes(weights_bytes(net.state_dict()))
        state = read_weights(path)
        assert set(state) == set(net.state_dict())
        for name, tensor in net.state_dict().items():
            assert state[name].dtype == tensor.dtype
            assert torch.equal(state[name], tensor)

    def test_equal_tensors_give_equal_bytes(self) -> None:
        state = self.net().state_dict()
        turned = dict(reversed(state.items()))
        assert (
            weights_bytes(state) == weights_bytes(turned) == weights_bytes(self.net().state_dict())
        )

    @settings(max_examples=25)
    @given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def test_a_changed_bit_is_found(
        self, place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        content = bytearray(weights_bytes({"a": torch.arange(40.0), "b": torch.ones(3)}))
        content[int(place * len(content))] ^= 1 << bit
        path = tmp_path_factory.mktemp("bit") / "net.safetensors"
        path.write_bytes(content)
        try:
            state = read_weights(path)
        except WeightsError:
            return
        # What it hit says nothing of the tensors: a blank of the header, or the checksum's name.
        assert torch.equal(state["a"], torch.arange(40.0))
        assert torch.equal(state["b"], torch.ones(3))

    def test_what_is_no_tensor_is_named(self) -> None:
        with pytest.raises(WeightsError, match="dict under 'extra', no tensor"):
            weights_bytes({"extra": {"steps": 3}})


CONFIGURATIONS = [
    Configuration(LogMelSpec(), Cnn1dSpec(), TrainSpec(optimizer=SgdSpec(lr=10.0**-i)), source="")
    for i in range(1, 5)
]


def plan_of(configurations: int, folds: int, mode: str) -> Plan:
    trials = tuple(
        Trial(configuration, 1, fold, 0)
        for fold in range(2, 2 + folds)
        for configuration in CONFIGURATIONS[:configurations]
    )
    return Plan("p", "val_auroc", mode, ("a", "b"), (), trials)


def record(trial: Trial, auroc: float | None) -> TrialRecord:
    scores = Scores(0.5, 0.5, 0.5, 0.5, 0.5, auroc, 0.5, 0.5, 0.5)
    result = SplitResult(scores, Predictions((0,), (0,), (0,), ((0.5, 0.5),)))
    rows = (EpochRow(0, 0.1, 0.5, 0.5, 0.5, 0.5),)
    timing = Timing("2026-01-01T00:00:00+00:00", 1.0, 1.0, 1, "host", "cpu")
    return TrialRecord(trial.id, 0, rows, result, None, ParameterCount(1, 1), timing)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_in_any_order_those_of_the_best_and_of_the_incomplete_stay(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mode = data.draw(st.sampled_from(["max", "min"]))
    plan = plan_of(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)), mode)
    values = st.sampled_from([None, 0.25, 0.5, 0.75])
    records = [record(trial, data.draw(values)) for trial in plan.trials]
    order: Sequence[TrialRecord] = data.draw(st.permutations(records))
    cut = data.draw(st.integers(0, len(order)))
    ledger = Ledger.open(tmp_path_factory.mktemp("run"))
    scores: dict[str, float | None] = {}
    keeper = KeptWeights(ledger, plan, "best", {})
    for i, one in enumerate(order):
        if i == cut:
            keeper = KeptWeights(ledger, plan, "best", scores)
        keeper.save(one, Weights(one.trial, one.trial.encode()))
        scores[one.trial] = metric_of(one, plan.metric)
        keeper.recorded(one)
        best = best_configuration(plan, scores)
        expected = {
            trial.id
            for of_one in plan.trials_of.values()
            for trial in of_one
            if trial.id in scores
            and (
                any(t.id not in scores for t in of_one)
                or (best is not None and best.configuration is trial.configuration)
            )
        }
        assert kept(ledger.run_dir) == {trial: trial.encode() for trial in sorted(expected)}


def test_a_kill_between_record_and_removal_is_made_up_for(tmp_path: Path) -> None:
    plan = plan_of(2, 1, "max")
    ledger = Ledger.open(tmp_path / "run")
    better, worse = (record(t, value) for t, value in zip(plan.trials, (0.5, 0.25), strict=True))
    for one in (worse, better):
        ledger.save_weights(Weights(one.trial, b"x"))
    KeptWeights(ledger, plan, "best", {better.trial: 0.5, worse.trial: 0.25})
    assert set(kept(tmp_path / "run")) == {better.trial}


def test_those_of_a_pruned_configuration_go(tmp_path: Path) -> None:
    plan = plan_of(2, 2, "max")
    ledger = Ledger.open(tmp_path / "run")
    keeper = KeptWeights(ledger, plan, "best", {})
    first, second = plan.trials[:2]
    for trial, value in ((first, 0.75), (second, 0.25)):
        keeper.save(record(trial, value), Weights(trial.id, b"x"))
        keeper.recorded(record(trial, value))
    assert set(kept(ledger.run_dir)) == {first.id, second.id}
    keeper.grow(replace(plan, pruned=frozenset({plan.trials[3].id})))
    assert set(kept(ledger.run_dir)) == {first.id}


def test_a_record_made_again_does_not_stand_beside_old_weights(tmp_path: Path) -> None:
    plan = plan_of(1, 1, "max")
    ledger = Ledger.open(tmp_path / "run")
    one = record(plan.trials[0], 0.5)
    ledger.save_weights(Weights(one.trial, b"old"))
    KeptWeights(ledger, plan, "none", {}).save(one, None)
    assert kept(tmp_path / "run") == {}


@pytest.mark.parametrize("keep", ["best", "all", "none"])
def test_a_sweep_keeps_what_the_specification_says(foldgrid, write_spec, tmp_path, keep) -> None:
    spec = write_spec(execution={"keep_weights": keep})
    result = foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL)
    assert result.code == 0, result.err
    names = [path.name for path in sorted((tmp_path / "run" / "trials").iterdir())]
    expected = {
        "best": [name for name in names if name.startswith(best_of(result.out))],
        "all": names,
        "none": [],
    }[keep]
    assert len(names) == 4
    assert list(kept(tmp_path / "run")) == expected
    for name in expected:
        state = read_weights(tmp_path / "run" / "trials" / name / "weights.safetensors")
        assert sum(tensor.numel() for tensor in state.values()) > 500_000


def test_a_finished_sweep_loses_nothing_by_the_same_command(
    foldgrid, write_spec, tmp_path: Path
) -> None:
    spec = write_spec(execution={"keep_weights": "all"})
    assert foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL).code == 0
    before = kept(tmp_path / "run")
    again = foldgrid(
        "run", spec, "--out", tmp_path / "run", "--set", "execution.keep_weights=best", *SERIAL
    )
    assert again.code == 0
    assert kept(tmp_path / "run") == before


FACTORY = """
from torch import nn

class Counting(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, features):
        return self.inner(features)
    def get_extra_state(self):
        return {"steps": 3}
    def set_extra_state(self, state):
        pass

def build(input_shape, classes):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1], classes))
    return Counting(flat)
"""


def test_a_model_that_cannot_be_kept_is_named_and_finishes(foldgrid, write_spec, tmp_path) -> None:
    (tmp_path / "counting_nets.py").write_text(FACTORY, encoding="utf-8")
    spec = write_spec(model={"name": "counting_nets:build"})
    result = foldgrid("run", spec, "--out", tmp_path / "run", *SERIAL)
    assert result.code == 0
    assert "its weights cannot be kept: the model keeps dict under '_extra_state'" in result.err
    assert kept(tmp_path / "run") == {}


def test_a_killed_and_continued_sweep_ends_with_the_same_weights(
    foldgrid, write_spec, tmp_path: Path
) -> None:
    spec = write_spec(train={"epochs": 3, "batch_size": 8, "optimizer": {"lr": 0.01}})
    assert foldgrid("run", spec, "--out", tmp_path / "whole", *SERIAL).code == 0
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "orchestrator", "run", str(spec), "--out", str(out), *SERIAL]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + 60
    while not list(out.glob("trials/*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    finished = list(out.glob("trials/*/result.json"))
    assert finished
    assert set(kept(out)) >= {path.parent.name for path in finished}
    assert foldgrid("run", spec, "--out", out, *SERIAL).code == 0
    assert kept(out) == kept(tmp_path / "whole")
    assert len(kept(out)) == 2


@pytest.mark.ray
def test_ray_keeps_the_same_bytes(foldgrid, write_spec, ray_address: str, tmp_path: Path) -> None:
    spec = write_spec(execution={"keep_weights": "all"})
    assert foldgrid("run", spec, "--out", tmp_path / "serial", *SERIAL).code == 0
    on_ray = ("--address", ray_address, "--quiet")
    assert foldgrid("run", spec, "--out", tmp_path / "ray", *on_ray).code == 0
    assert len(kept(tmp_path / "serial")) == 4
    assert kept(tmp_path / "ray") == kept(tmp_path / "serial")
