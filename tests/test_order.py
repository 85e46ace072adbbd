"""Which trials start first, and how long a sweep still takes."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.spec import LogMelSpec
from models.spec import Cnn1dSpec, CnnTransformerSpec, FactorySpec, ModelSpec
from orchestrator.costs import EQUAL, Costs, longest_first, prior_seconds
from orchestrator.folds import Split
from orchestrator.hyperparameters import EarlyStoppingSpec, SgdSpec, TrainSpec
from orchestrator.remaining import Remaining, makespan
from orchestrator.trials import Configuration, Trial

FOLDS = (2, 3)
SPLITS = {
    (1, fold): Split(1, fold, tuple(range(60)), tuple(range(60, 80)), tuple(range(80, 100)))
    for fold in FOLDS
}
FEATURES = LogMelSpec(seconds=2.0, n_mels=40)


def trial(
    model: ModelSpec | None = None, epochs: int = 4, fold: int = 2, seed: int = 0, **train: object
) -> Trial:
    spec = TrainSpec(epochs=epochs, **train)  # type: ignore[arg-type]
    return Trial(Configuration(FEATURES, model or Cnn1dSpec(), spec), 1, fold, seed)


TRANSFORMER = CnnTransformerSpec(heads=4)
KINDS = {
    "cnn1d": trial(),
    "more epochs": trial(epochs=8),
    "small batches": trial(batch_size=2),
    "transformer": trial(TRANSFORMER),
}


def guess(trial: Trial) -> float:
    return prior_seconds(trial.configuration, SPLITS[trial.test_fold, trial.fold])


# The order


def test_the_longest_start_first() -> None:
    trials = [KINDS[name] for name in ("cnn1d", "small batches", "transformer", "more epochs")]
    found = longest_first(trials, Costs(SPLITS))
    assert found[0] is KINDS["transformer"]
    assert found[-1] is KINDS["cnn1d"]


@pytest.mark.parametrize(
    "trials",
    [
        [trial(optimizer=SgdSpec(lr=lr), fold=fold) for fold in FOLDS for lr in (0.1, 0.3, 0.2)],
        [trial(CnnTransformerSpec(heads=heads, dropout=d)) for heads in (1, 4) for d in (0.5, 0)],
        [trial(FactorySpec(name="own:net", params={"width": width})) for width in (8, 64, 1)],
    ],
    ids=["learning rates", "heads", "a user's model"],
)
def test_what_costs_the_same_starts_in_plan_order(trials: list[Trial]) -> None:
    costs = Costs(SPLITS)
    assert longest_first(trials, costs) == trials
    # One trial that met a busy machine is no reason to change it.
    costs.note(trials[-1], 4, 5 * costs.seconds_left(trials[-1]))
    assert longest_first(trials, costs) == trials


def test_measured_times_count_for_more_than_the_guess() -> None:
    costs = Costs(SPLITS)
    slow, quick = KINDS["cnn1d"], KINDS["transformer"]
    for known, seconds in ((slow, 8.0), (quick, 2.0)) * 2:
        costs.note(known, 4, seconds)
    assert longest_first([quick, slow], costs) == [slow, quick]
    assert costs.seconds_left(slow) == pytest.approx(8)
    assert costs.seconds_left(trial(epochs=12)) == pytest.approx(24)


def test_an_unfinished_trial_counts_what_is_left_of_it() -> None:
    one, two = trial(fold=2), trial(fold=3)
    assert longest_first([one, two], Costs(SPLITS), {one.id: 3}) == [two, one]


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from(FOLDS)), max_size=30))
def test_ties_keep_plan_order_and_nothing_much_longer_waits(
    drawn: list[tuple[int, int]],
) -> None:
    trials = [trial(epochs=e, fold=fold, seed=seed) for seed, (e, fold) in enumerate(drawn)]
    found = longest_first(trials, Costs(SPLITS))
    assert sorted(found, key=trials.index) == trials
    for before, after in pairwise(found):
        first, second = before.configuration.train.epochs, after.configuration.train.epochs
        assert first >= (1 - EQUAL) * second
        assert first != second or before.seed < after.seed


# The remaining time


class Sweep:
    """Workers that run trials whose epochs take known times, told to an estimate."""

    def __init__(self, trials: list[Trial], seconds: dict[str, float], workers: int) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.order = longest_first(trials, Costs(SPLITS))
        self.remaining = Remaining(self.order, Costs(SPLITS), {})
        self.events = self._events(workers)

    def _events(self, workers: int) -> list[tuple[float, int, str, Trial, int]]:
        free = [0.0] * workers
        events = []
        for known in self.order:
            worker = free.index(min(free))
            each = self.seconds[known.configuration.model.name]
            begin, epochs = free[worker], known.configuration.train.epochs
            events.append((begin, 1, "start", known, 0))
            for epoch in range(epochs):
                events.append((begin + each * (epoch + 1), 0, "epoch", known, epoch))
            free[worker] = begin + each * epochs
        self.total = max(free)
        return sorted(events, key=lambda event: event[:2])

    def run(self, until: float = math.inf) -> None:
        """Tell everything that happens until then."""
        while self.events and self.events[0][0] <= until:
            self.now, _, what, known, epoch = self.events.pop(0)
            if what == "start":
                self.remaining.started(known.id, 0, self.now)
                continue
            each = self.seconds[known.configuration.model.name]
            self.remaining.epoch(known.id, epoch, each, self.now)
            if epoch + 1 == known.configuration.train.epochs:
                self.remaining.ended(known.id, self.now, well=True)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 20)), min_size=1, max_size=20),
    st.integers(1, 4),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
    st.floats(0, 1),
)
def test_the_estimate_is_finite_and_zero_at_the_end(
    drawn: list[tuple[bool, int]], workers: int, one: float, other: float, share: float
) -> None:
    trials = [
        trial(TRANSFORMER if big else None, epochs, seed=seed)
        for seed, (big, epochs) in enumerate(drawn)
    ]
    sweep = Sweep(trials, {"cnn1d": one, "cnn_transformer": other}, workers)
    assert sweep.remaining.seconds(0.0) is None
    sweep.run(share * sweep.total)
    left = sweep.remaining.seconds(sweep.now)
    assert left is None or (math.isfinite(left) and left >= 0)
    sweep.run()
    assert sweep.remaining.seconds(sweep.now) == 0


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_after_a_tenth_the_estimate_is_right_within_a_fifth(workers: int) -> None:
    """On a machine ten times as slow as the guess, whose ratio of the models is a third off."""
    big = [trial(TRANSFORMER, 10, seed=seed) for seed in range(6)]
    small = [trial(None, 10, seed=seed, batch_size=8) for seed in range(12)]
    ratio = guess(big[0]) / guess(small[0])
    seconds = {"cnn1d": 10.0, "cnn_transformer": 10.0 * ratio * 1.33}
    sweep = Sweep(small + big, seconds, workers)
    sweep.run(0.1 * sweep.total)
    left = sweep.remaining.seconds(sweep.now)
    assert left == pytest.approx(sweep.total - sweep.now, rel=0.2)


def test_a_new_worker_and_the_first_epoch_of_a_trial_are_not_extrapolated() -> None:
    trials = [trial(epochs=3, seed=seed) for seed in range(3)]
    remaining = Remaining(trials, Costs(SPLITS), {})
    remaining.started(trials[0].id, 0, 0.0)
    remaining.epoch(trials[0].id, 0, 9.0, 9.0)
    assert remaining.seconds(9.0) == pytest.approx(2 * 9 + 6 * 9)
    remaining.epoch(trials[0].id, 1, 1.0, 10.0)
    assert remaining.seconds(20.0) == pytest.approx(6, abs=1)


def test_a_machine_that_gets_busier_is_noticed() -> None:
    """Ten trials of 1 s, and then of 2 s: after twenty, the other twenty take 40 s."""
    trials = [trial(epochs=1, seed=seed) for seed in range(40)]
    remaining, now = Remaining(trials, Costs(SPLITS), {}), 0.0
    for i, known in enumerate(trials[:20]):
        remaining.started(known.id, 0, now)
        seconds = 1.0 if i < 10 else 2.0
        now += seconds
        remaining.epoch(known.id, 0, seconds, now)
        remaining.ended(known.id, now, well=True)
    assert remaining.seconds(now) == pytest.approx(40, rel=0.05)


def test_a_trial_that_stops_early_shortens_those_like_it() -> None:
    trials = [trial(epochs=10, seed=s, early_stopping=EarlyStoppingSpec()) for s in range(3)]
    remaining = Remaining(trials, Costs(SPLITS), {})
    remaining.started(trials[0].id, 0, 0.0)
    for epoch in range(5):
        remaining.epoch(trials[0].id, epoch, 1.0, epoch + 1.0)
    remaining.ended(trials[0].id, 5.0, well=True)
    assert remaining.seconds(5.0) == pytest.approx(10)


def test_a_worker_that_is_gone_is_not_counted_on() -> None:
    trials = [trial(epochs=1, seed=seed) for seed in range(10)]
    remaining = Remaining(trials, Costs(SPLITS), {})
    for known in trials[:2]:
        remaining.started(known.id, 0, 0.0)
    for known in trials[:2]:
        remaining.epoch(known.id, 0, 10.0, 10.0)
        remaining.ended(known.id, 10.0, well=True)
    assert remaining.seconds(10.0) == pytest.approx(40)
    remaining.started(trials[2].id, 0, 10.0)
    assert remaining.seconds(50.0) == pytest.approx(70, abs=1)


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads that take turns so often that what is not locked goes wrong."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_the_display_may_ask_while_the_sweep_goes_on(switching: None) -> None:
    trials = [trial(epochs=1, seed=seed) for seed in range(300)]
    remaining = Remaining(trials, Costs(SPLITS), {})
    faults: list[Exception] = []
    over = threading.Event()

    def ask() -> None:
        now = 0.0
        try:
            while not over.is_set():
                remaining.seconds(now := now + 1e6)
        except Exception as error:
            faults.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    for i, known in enumerate(trials):
        remaining.started(known.id, 0, float(i))
        remaining.epoch(known.id, 0, 1.0, float(i))
        remaining.ended(known.id, float(i), well=True)
    over.set()
    asking.join()
    assert not faults


def test_the_last_worker_does_not_end_alone() -> None:
    """Eight trials of 1 s and one of 4 s on two workers: 8 s in plan order, 6 s longest first."""
    plan_order = [1.0] * 8 + [4.0]
    assert makespan([], plan_order, 2) == 8
    assert makespan([], sorted(plan_order, reverse=True), 2) == 6
    assert makespan([3.0], [1.0], 2) == 3


# Through the command line


MIXED = {"grid": [{"name": "cnn1d"}, {"name": "cnn_transformer", "heads": 2, "layers": 1}]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("order") / "out"


@pytest.fixture
def mixed(foldgrid, write_spec, finished: Path) -> tuple[Path, Path]:
    """A specification of short and long trials, and its finished run."""
    spec = write_spec(model=MIXED)
    if not finished.exists():
        result = foldgrid("run", spec, "--out", finished, "--executor", "serial")
        assert result.code == 0, result.err
        (finished / "progress.txt").write_text(result.err)
    return spec, finished


def test_long_trials_start_first_and_tables_keep_plan_order(mixed: tuple[Path, Path]) -> None:
    _, out = mixed
    with (out / "tables" / "timings.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    models = ["cnn1d", "cnn_transformer"] * 2
    assert [row["trial"].partition("-")[0] for row in rows] == models
    started = [row["trial"].partition("-")[0] for row in sorted(rows, key=lambda r: r["started"])]
    assert started == ["cnn_transformer"] * 2 + ["cnn1d"] * 2
    lines = [x for x in (out / "progress.txt").read_text().splitlines() if " finished" in x]
    assert all(" left" in line for line in lines)
    assert lines[-1].endswith("about 0 s left")


def plan(foldgrid, spec: Path, out: Path) -> dict[str, float | None]:
    result = foldgrid("plan", spec, "--json", "--out", out)
    assert result.code == 0, result.err
    return json.loads(result.out)  # type: ignore[no-any-return]


def test_plan_tells_the_time_from_finished_trials(
    foldgrid, mixed: tuple[Path, Path], tmp_path: Path
) -> None:
    spec, out = mixed
    done = plan(foldgrid, spec, out)
    assert (done["finished"], done["left_seconds"]) == (4, 0)
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for folder in sorted((copy / "trials").glob("*-f3-*")):
        shutil.rmtree(folder)
    half = plan(foldgrid, spec, copy)
    assert half["finished"] == 2
    assert 0 < half["left_seconds"] < half["whole_seconds"]
    text = foldgrid("plan", spec, "--out", copy).out
    assert "of it left (2 of 4 trials)" in text


def test_plan_invents_no_time(foldgrid, mixed: tuple[Path, Path], tmp_path: Path) -> None:
    spec, out = mixed
    new = plan(foldgrid, spec, tmp_path / "none")
    assert (new["finished"], new["whole_seconds"], new["left_seconds"]) == (0, None, None)
    text = foldgrid("plan", spec, "--out", tmp_path / "none").out
    assert "time: not known before a trial has finished" in text
    other = foldgrid("plan", spec, "--json", "--out", out, "--set", "train.epochs=9")
    assert json.loads(other.out)["whole_seconds"] is None


def test_plan_needs_no_record_that_it_can_read(
    foldgrid, mixed: tuple[Path, Path], tmp_path: Path
) -> None:
    spec, out = mixed
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    damaged, later, *_ = sorted(copy.glob("trials/*/result.json"))
    damaged.write_text("{")
    later.write_text(later.read_text().replace('"format_version": ', '"format_version": 9'))
    found = plan(foldgrid, spec, copy)
    assert found["finished"] == 2
    assert found["left_seconds"] > 0
