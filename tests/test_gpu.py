"""What only a real GPU can show: skipped without one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.spec import LogMelSpec
from models.spec import Cnn1dSpec
from orchestrator.device import limit_memory
from orchestrator.hyperparameters import TrainSpec
from orchestrator.packing import CONTEXT_BYTES
from orchestrator.probe import probe
from orchestrator.training import SplitData
from orchestrator.trial import TrialInput
from orchestrator.trials import Configuration, Trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GREEDY = """
import torch
from torch import nn

class Greedy(nn.Module):
    def __init__(self, inner, share):
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, features):
        total = torch.cuda.get_device_properties(features.device).total_memory
        torch.empty(int(self.share * total), dtype=torch.uint8, device=features.device)
        return self.inner(features.flatten(1))

def greedy(input_shape, classes, share):
    return Greedy(nn.Linear(input_shape[0] * input_shape[1], classes), share)
"""


def read(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / "tables" / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.ray
@pytest.mark.slow
def test_packed_trials_give_what_they_give_alone(
    foldgrid: Any, write_spec: Any, tmp_path: Path
) -> None:
    train = {"epochs": 3, "batch_size": 8, "deterministic": True}
    runs = {}
    for gpu in ("1", "auto", "1/4"):
        out = runs[gpu] = tmp_path / gpu.replace("/", "-")
        spec = write_spec(
            train=train, resources={"cpu": 0.25, "gpu": gpu if "/" in gpu else "auto"}
        )
        options = ["--set", "resources.gpu=1"] if gpu == "1" else []
        ended = foldgrid("run", spec, "--out", out, *options)
        assert ended.code == 0, ended.err
        if gpu == "auto" and torch.cuda.device_count() < 4:
            assert "trials a GPU (each at most" in ended.err
    alone = read(runs.pop("1"), "epochs.csv")
    for out in runs.values():
        for one, other in zip(alone, read(out, "epochs.csv"), strict=True):
            assert one["trial"] == other["trial"]
            for key in ("train_loss", "val_loss"):
                assert float(one[key]) == pytest.approx(float(other[key]), rel=1e-5)


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_wants_more_than_its_share_gets_a_larger_one(
    foldgrid: Any, write_spec: Any, tmp_path: Path
) -> None:
    (tmp_path / "greedy_nets.py").write_text(GREEDY, encoding="utf-8")
    spec = write_spec(
        model={"name": "greedy_nets:greedy", "params": {"share": 0.3}},
        resources={"cpu": 0.25, "gpu": "1/4"},
    )
    out = tmp_path / "out"
    ended = foldgrid("run", spec, "--out", out)
    assert ended.code == 0, ended.err
    assert {row["attempts"] for row in read(out, "timings.csv")} == {"2"}


def test_a_process_is_held_to_its_share() -> None:
    device = torch.device("cuda", 0)
    total = torch.cuda.get_device_properties(device).total_memory
    wanted = int(0.3 * total)
    try:
        limit_memory(device, 1 / 4)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(wanted, dtype=torch.uint8, device=device)
        # A process is kept for trials with other shares.
        limit_memory(device, 1 / 2)
        taken = torch.empty(wanted, dtype=torch.uint8, device=device)
        assert torch.cuda.max_memory_reserved(device) <= total / 2 - CONTEXT_BYTES
        del taken
    finally:
        limit_memory(device, 1.0)
        torch.cuda.empty_cache()


def test_what_a_probe_finds_is_plausible() -> None:
    features = LogMelSpec(n_mels=80, seconds=2.0)
    configuration = Configuration(features, Cnn1dSpec(), TrainSpec(epochs=100, batch_size=16))
    rows = np.arange(600)
    rng = np.random.default_rng(0)
    given = TrialInput(
        trial=Trial(configuration, test_fold=1, fold=2, seed=0),
        features=rng.standard_normal((600, *features.shape), dtype=np.float32),
        labels=rows % 10,
        split=SplitData(rows[:400], rows[400:500], rows[500:]),
        classes=10,
    )
    need = probe(given)
    weights = 641_034 * 4
    # Weights, gradients and momentum-free SGD, and the split's features at least.
    assert 2 * weights + given.features.nbytes < need.memory < 4 * 10**9
    assert 50 * 10**6 < need.context < need.total
    assert need.total == torch.cuda.get_device_properties(0).total_memory
    assert 0 < need.seconds < 60
    assert need.busy is None or 0 < need.busy <= 1
    larger = replace(configuration, train=TrainSpec(epochs=100, batch_size=128))
    more = probe(replace(given, trial=replace(given.trial, configuration=larger)))
    assert more.memory >= need.memory
