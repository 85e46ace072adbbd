"""Seconds a trial that foldgrid spends beside training, against Ray Tune's functions and a loop.

    python tests/benchmarks/orchestration.py [TRIALS ...] [--functions 40]

One-epoch trials of `cnn1d` on a tiny part of the synthetic sounds (100 and 1,000 of them, unless
told otherwise), each row in processes of its own:

limit      the trial code alone in one bare process a core, no results kept. Its seconds of
           training, with all cores busy, are what the others are measured against.
loop       the trial code alone in one process, one trial after the other.
serial     `foldgrid run --executor serial`: the loop, with ledger, progress and tables.
foldgrid   `foldgrid run`, on Ray, with as many workers as there are cores.
functions  function trainables of Ray Tune that call the trial code with features from the object
           store; some fewer trials, as each takes seconds.

The columns: start-up, from the launch to the first trial; wall, from then to the last trial's end;
beside, wall a trial less the limit's training a trial and core; ratio, how many times foldgrid's;
in all, the same with the start-up counted in.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from machine import CORES, start_ray

if TYPE_CHECKING:
    from orchestrator.trial import TrialInput

SPEC = """\
name: orchestration
data: {dataset: synthetic}
features: {kind: log_mel, seconds: 0.5, n_mels: 16, hop_length: 256}
folds: {test: 1, validate: [2]}
model: {name: cnn1d}
train:
  epochs: 1
  optimizer: {name: sgd, weight_decay: {grid: GRID}}
"""

Times = list[tuple[float, float, float]]
"""Begin, wall seconds and seconds of training, by trial."""


@dataclass(frozen=True)
class Figures:
    """Trials, seconds of start-up and of the sweep, and seconds of training in all."""

    trials: int
    start: float
    wall: float
    trained: float

    def beside(self, pure: float, workers: int) -> float:
        """Seconds a trial beside so many of training."""
        return self.wall / self.trials - pure / workers


def figures(launched: float, times: Times) -> Figures:
    """Sum up what the trials say."""
    first = min(begun for begun, _, _ in times)
    wall = max(begun + took for begun, took, _ in times) - first
    return Figures(len(times), first - launched, wall, sum(trained for _, _, trained in times))


def foldgrid(spec: Path, folder: Path, executor: str) -> Figures:
    """One whole run."""
    out = folder / f"{spec.stem}-{executor}"
    command = [sys.executable, "-m", "orchestrator", "run", str(spec), "--out", str(out)]
    launched = time.time()
    subprocess.run([*command, "--executor", executor, "--quiet"], check=True, capture_output=True)
    with (out / "tables" / "timings.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    starts = [datetime.fromisoformat(row["started"]).timestamp() for row in rows]
    walls = [float(row["wall_seconds"]) for row in rows]
    trained = [float(row["train_seconds"]) for row in rows]
    return figures(launched, list(zip(starts, walls, trained, strict=True)))


def alone(name: str, spec: Path, folder: Path) -> Figures:
    """One of the functions below in a process of its own."""
    out = folder / f"{spec.stem}-{name}.json"
    launched = time.time()
    command = [sys.executable, __file__, "--contender", name, str(spec), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return figures(launched, [tuple(row) for row in json.loads(out.read_text(encoding="utf-8"))])


def inputs(spec: Path) -> Iterator[TrialInput]:
    """Everything that each trial needs."""
    import numpy as np

    from features.cache import cache_root, features_of
    from orchestrator.experiment import load_dataset, make_experiment
    from orchestrator.sweep import load_sweep
    from orchestrator.training import SplitData
    from orchestrator.trial import TrialInput

    sweep = load_sweep(spec, ())
    experiment = make_experiment(sweep, load_dataset(sweep))
    found = features_of(experiment.dataset, experiment.features[0], cache=cache_root(), workers=1)
    (split,) = experiment.splits
    rows = SplitData(*(np.array(part) for part in (split.train, split.val, split.test)))
    labels = np.array([clip.label for clip in experiment.dataset.clips], dtype=np.int64)
    for trial in experiment.plan.trials:
        yield TrialInput(trial, np.asarray(found.array), labels, rows, 10)


def run_timed(given: TrialInput) -> tuple[float, float, float]:
    """Run a trial; its begin, wall seconds and seconds of training."""
    from orchestrator.trial import run_trial

    begun, clock = time.time(), time.perf_counter()
    record = run_trial(given)
    return begun, time.perf_counter() - clock, record.timing.train_seconds


def some(arguments: tuple[Path, int, int]) -> Times:
    """Every so manieth trial, from one on."""
    from orchestrator.trial import warm_up

    spec, first, step = arguments
    warm_up()
    return [run_timed(given) for given in list(inputs(spec))[first::step]]


def limit(spec: Path) -> Times:
    """One bare process a core."""
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        parts = pool.map(some, [(spec, own, CORES) for own in range(CORES)])
        return [row for part in parts for row in part]


def loop(spec: Path) -> Times:
    """One bare process."""
    return some((spec, 0, 1))


def functions(spec: Path) -> Times:
    """Every trial as a function trainable."""
    from ray import tune

    given = list(inputs(spec))
    features = given[0].features
    bare = [(i.trial, i.labels, i.split, i.classes) for i in given]

    def trainable(config: dict[str, int], features: object) -> None:
        from orchestrator.trial import TrialInput

        trial, labels, rows, classes = bare[config["trial"]]
        begun, took, trained = run_timed(TrialInput(trial, features, labels, rows, classes))
        tune.report({"begun": begun, "took": took, "trained": trained})

    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        with_features = tune.with_parameters(trainable, features=features)
        tuner = tune.Tuner(
            tune.with_resources(with_features, {"cpu": 1}),
            param_space={"trial": tune.grid_search(list(range(len(given))))},
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = [result.metrics or {} for result in tuner.fit()]
    return [(row["begun"], row["took"], row["trained"]) for row in results]


CONTENDERS = {"limit": limit, "loop": loop, "functions": functions}


def write_spec(folder: Path, trials: int) -> Path:
    """A specification of so many trials."""
    spec = folder / f"{trials}.yaml"
    grid = [round(0.00001 * i, 6) for i in range(trials)]
    spec.write_text(SPEC.replace("GRID", str(grid)), encoding="utf-8")
    return spec


def compare(folder: Path, trials: int, most_functions: int) -> None:
    """Run and print one size."""
    spec = write_spec(folder, trials)
    bare = alone("limit", spec, folder)
    pure = bare.trained / trials
    print(f"\n{trials} trials; pure training {pure:.3f} s a trial, {CORES} at once")
    print(f"{'':11}{'start-up s':>12}{'wall s':>9}{'beside s':>10}{'ratio':>8}{'in all s':>10}")
    own = foldgrid(spec, folder, "ray")
    few = write_spec(folder, min(trials, most_functions))
    alike = alone("loop", spec, folder)
    rows = [
        ("limit", bare, pure, CORES),
        ("loop", alike, alike.trained / trials, 1),
        ("serial", foldgrid(spec, folder, "serial"), alike.trained / trials, 1),
        ("foldgrid", own, pure, CORES),
        ("functions", alone("functions", few, folder), pure, CORES),
    ]
    for name, row, training, workers in rows:
        beside = row.beside(training, workers)
        ratio = beside / own.beside(pure, CORES)
        in_all = beside + row.start / row.trials
        print(f"{name:11}{row.start:12.1f}{row.wall:9.1f}{beside:10.3f}{ratio:8.2f}{in_all:10.3f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trials", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--functions", type=int, default=40, help="most function trainables")
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        name, spec, out = options.contender
        Path(out).write_text(json.dumps(CONTENDERS[name](Path(spec))), encoding="utf-8")
        return
    print(f"{CORES} cores")
    with tempfile.TemporaryDirectory() as name:
        for trials in options.trials:
            compare(Path(name), trials, options.functions)


if __name__ == "__main__":
    main()
