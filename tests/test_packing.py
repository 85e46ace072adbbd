"""How many trials share a GPU, what each may take of it, and what a run says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.spec import LogMelSpec
from models.spec import Cnn1dSpec, CnnTransformerSpec, EstimatorSpec, ModelSpec
from orchestrator.capacity import Capacity
from orchestrator.device import limit_memory, trial_settings
from orchestrator.experiment import load_dataset, make_experiment
from orchestrator.forecast import Forecast
from orchestrator.hyperparameters import TrainSpec
from orchestrator.packing import (
    CONTEXT_BYTES,
    MARGIN,
    Need,
    Room,
    kinds,
    memory_fraction,
    pack,
    sentence,
    trials_per_gpu,
    worse,
)
from orchestrator.plan_view import as_lines, as_values
from orchestrator.probe import shortened
from orchestrator.sweep import load_sweep
from orchestrator.training import SplitData
from orchestrator.trial import TrialInput
from orchestrator.trials import Configuration, Trial

GB = 10**9
CUDA = torch.device("cuda", 0)

needs = st.builds(
    Need,
    memory=st.integers(10**6, 200 * GB),
    context=st.integers(0, 2 * GB),
    total=st.integers(2 * GB, 200 * GB),
    seconds=st.floats(0.01, 1000),
    busy=st.none() | st.floats(0.001, 1),
)
rooms = st.builds(
    Room,
    trials=st.integers(1, 500),
    gpus=st.integers(1, 16),
    cores=st.floats(0.5, 64),
    cpu=st.sampled_from([0.25, 0.5, 1, 3]),
)


@given(st.lists(needs, min_size=1, max_size=5), rooms)
def test_trials_of_a_gpu_never_take_more_than_it_has(measured: list[Need], room: Room) -> None:
    groups = [[i] for i in range(len(measured))]
    packing = pack(groups, dict(enumerate(measured)), room, len(measured))
    total = min(need.total for need in measured)
    for share, need in zip(packing.shares, measured, strict=True):
        if share == 1:
            continue
        n = round(1 / share)
        assert share == 1 / n
        assert n * MARGIN * (need.memory + packing.context) <= total
        # What the limit lets them take, though they may not need it.
        assert n * (memory_fraction(share, packing.context, total) * total + packing.context) <= (
            total * (1 + 1e-9)
        )
        # And it lets each take what it needed.
        assert memory_fraction(share, packing.context, total) * total >= need.memory


@given(needs, rooms)
def test_a_gpu_gets_no_more_trials_than_cores_or_trials(need: Need, room: Room) -> None:
    n = trials_per_gpu(need, room)
    assert n >= 1
    assert n == 1 or n * room.cpu <= room.cores + 1e-6
    assert (n - 1) * room.gpus < room.trials


@given(needs, rooms, st.floats(1, 10))
def test_the_more_a_trial_needs_the_fewer_fit(need: Need, room: Room, factor: float) -> None:
    larger = replace(need, memory=int(need.memory * factor))
    busier = replace(need, busy=min(1.0, need.busy * factor) if need.busy else None)
    assert trials_per_gpu(larger, room) <= trials_per_gpu(need, room)
    assert trials_per_gpu(busier, room) <= trials_per_gpu(need, room)


@pytest.mark.parametrize(
    ("need", "room", "expected"),
    [
        ((9, 1, 24), (100, 1, 64, 1), 2),
        ((21, 1, 24), (100, 1, 64, 1), 1),
        ((0.1, 0.4, 24), (100, 1, 64, 1), 15),
        ((0.1, 0.4, 24), (100, 1, 6, 1), 6),
        ((0.1, 0.4, 24), (100, 1, 6, 4), 1),
        ((0.1, 0.4, 24), (8, 4, 64, 1), 2),
        ((0.1, 0.4, 24), (3, 4, 64, 1), 1),
        ((0.1, 0.4, 24, 0.9), (100, 1, 64, 1), 3),
        ((0.1, 0.4, 24, 0.25), (100, 1, 64, 1), 5),
    ],
)
def test_trials_per_gpu(need: tuple[float, ...], room: Any, expected: int) -> None:
    memory, context, total = (int(value * GB) for value in need[:3])
    assert trials_per_gpu(Need(memory, context, total, 1.0, *need[3:]), Room(*room)) == expected


def test_kinds_that_failed_or_were_not_tried() -> None:
    small, large = (Need(n * GB, GB // 2, 24 * GB, 1.0) for n in (1, 4))
    room = Room(trials=1000, gpus=1, cores=64, cpu=1)
    packing = pack([[0, 4], [1], [2], [3]], {0: large, 1: None, 2: small}, room, 5)
    assert packing.shares == (1 / 4, 1, 1 / 13, 1 / 4, 1 / 4)
    assert packing.context == GB // 2
    assert "4.5 of 24.0 GB" in sentence(packing, {0: large, 1: None, 2: small})
    assert pack([[0]], {0: None}, room, 1).shares == pack([[0]], {}, room, 1).shares == (1,)


def test_estimators_have_no_share() -> None:
    estimator = Trial(Configuration(FEATURES, EstimatorSpec(name="sklearn:SVC"), None), 1, 2, 0)
    trials = [estimator, trial(), estimator]
    assert kinds(trials, {(1, 2): 10}) == [[1]]
    need = Need(4 * GB, GB // 2, 24 * GB, 1.0)
    packing = pack([[1]], {0: need}, Room(trials=8, gpus=1, cores=64, cpu=1), 3)
    assert packing.shares == (0, 1 / 4, 0)
    assert "4 trials a GPU" in sentence(packing, {0: need})


def test_of_two_gpus_the_smaller_counts() -> None:
    need = Need(GB, GB, 24 * GB, 1.0)
    assert worse(need, replace(need, total=8 * GB)) == replace(need, total=8 * GB)
    assert worse(need, None) is worse(None, need) is None


def test_a_share_that_nobody_measured_leaves_something() -> None:
    assert memory_fraction(1 / 2, CONTEXT_BYTES, 24 * GB) == pytest.approx(0.4776, abs=1e-4)
    assert 0 < memory_fraction(1 / 100, CONTEXT_BYTES, 8 * GB) < 1 / 100
    assert memory_fraction(2.0, CONTEXT_BYTES, 8 * GB) == 1.0


FEATURES = LogMelSpec(n_mels=4, seconds=1.0)


def trial(model: ModelSpec | None = None, fold: int = 2, **train: Any) -> Trial:
    configuration = Configuration(FEATURES, model or Cnn1dSpec(), TrainSpec(**train))
    return Trial(configuration, test_fold=1, fold=fold, seed=0)


def sgd(**parameters: Any) -> Any:
    return {"name": "sgd", **parameters}


def test_trials_of_equal_memory_are_one_kind() -> None:
    trials = [
        trial(optimizer=sgd(lr=0.1, momentum=0.9), epochs=3),
        trial(optimizer=sgd(lr=0.2, momentum=0.8), schedule={"name": "cosine"}),
        trial(optimizer=sgd(lr=0.1)),
        trial(optimizer=sgd(lr=0.1, momentum=0.9), batch_size=64),
        trial(optimizer=sgd(lr=0.1, momentum=0.9), precision="bf16"),
        trial(CnnTransformerSpec(), optimizer=sgd(lr=0.1, momentum=0.9)),
        trial(Cnn1dSpec(init="xavier"), fold=3, optimizer=sgd(lr=0.1, momentum=0.9)),
        trial(CnnTransformerSpec(dropout=0.3), optimizer=sgd(lr=0.1, momentum=0.9)),
    ]
    # The largest batch first; in a kind the largest split.
    assert kinds(trials, {(1, 2): 100, (1, 3): 200}) == [[3], [6, 0, 1], [2], [4], [5, 7]]


def test_a_trial_is_tried_out_in_three_batches() -> None:
    rows = np.arange(1000)
    split = SplitData(rows[:600], rows[600:800], rows[800:])
    features = np.zeros((1000, *FEATURES.shape), dtype=np.float32)
    tried = trial(batch_size=16, epochs=1, early_stopping={"patience": 1})
    short = shortened(TrialInput(tried, features, rows % 3, split, classes=3, gpus=0.25))
    assert [len(part) for part in (short.split.train, short.split.val)] == [49, 64]
    assert short.trial.configuration.train.batch_size == 16
    assert short.gpus == 1


def test_nothing_of_cuda_is_called_for_a_trial_on_a_cpu() -> None:
    limit_memory(torch.device("cpu"), 0.0)
    assert not torch.cuda.is_initialized()


@pytest.fixture
def tf32() -> Iterator[None]:
    """Torch's own setting, restored."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def rounded() -> tuple[bool, bool]:
    backends: Any = torch.backends
    settings = backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    return settings[0] == "tf32", settings[1] == "tf32"


@pytest.mark.usefixtures("tf32")
@pytest.mark.skipif(torch.cuda.is_available(), reason="sets what a real GPU needs besides")
def test_tf32_is_for_gpus_and_not_where_determinism_is_asked_for() -> None:
    before = rounded()
    with trial_settings(CUDA, deterministic=False):
        assert rounded() == (True, True)
    assert rounded() == before
    with trial_settings(CUDA, deterministic=True):
        assert rounded() == (False, False)
    assert rounded() == before
    with trial_settings(torch.device("cpu"), deterministic=False):
        assert rounded() == before


@pytest.mark.usefixtures("tf32")
def test_a_users_choice_of_tf32_by_the_newer_interface_is_no_fault() -> None:
    backends: Any = torch.backends
    backends.cuda.matmul.fp32_precision = "tf32"
    with trial_settings(CUDA, deterministic=False):
        assert torch.get_float32_matmul_precision() == "high"
    assert rounded()[0]


def test_the_plan_says_that_a_share_is_measured(write_spec: Any) -> None:
    sweep = load_sweep(write_spec(), (), ())
    experiment = make_experiment(sweep, load_dataset(sweep))
    capacity = Capacity(1, 10**9, cpu=1, gpu=1.0, cores=8, gpus=2, measured=True)
    time, out = Forecast(0, None, None), Path("out")
    assert as_values(experiment, capacity, time)["resources"] == {"cpu": 1, "gpu": "auto"}
    lines = as_lines(experiment, capacity, time, out)
    assert any("measured when the run starts; at least 2 at once" in line for line in lines)
    assert "time: not known before a run has measured how many trials share a GPU" in lines
    lines = as_lines(experiment, replace(capacity, gpu=0.5, measured=False), time, out)
    assert any("0.5 GPU; 4 at once" in line for line in lines)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a GPU that is not there")
def test_a_trial_that_cannot_be_tried_out_tells_why_itself_and_estimators_need_no_gpu(
    foldgrid: Any, write_spec: Any
) -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"include_dashboard": False})
    try:
        inits = {"name": "cnn1d", "init": {"grid": ["random", "xavier"]}}
        model = {"grid": [inits, {"name": "sklearn:GaussianNB"}]}
        spec = write_spec(folds={"test": 1, "validate": [2]}, model=model)
        out = spec.parent / "out"
        ended = foldgrid("run", spec, "--address", cluster.address, "--out", out)
    finally:
        cluster.shutdown()
    assert ended.code == 1
    assert "gpu: auto: trying out one trial" in ended.err
    assert "gpu: auto: 1 trial a GPU (what one needs could not be measured)" in ended.err
    trials = (out / "tables" / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert sum("given 1 GPU, but torch finds no CUDA device" in line for line in trials) == 2
    assert [",finished," in line for line in trials if line.startswith("sklearn")] == [True]
