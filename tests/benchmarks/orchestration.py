"""Seconds a trial that foldgrid spends beside training, against Ray Tune's functions and a loop.

    python tests/benchmarks/orchestration.py [TRIALS ...] [--functions 40]

One-epoch trials of `cnn1d` on a tiny part of the synthetic sounds (100 and 1,000 of them, unless
told otherwise): in a plain loop over the same trial code (`--executor serial`), through Ray with as
many workers as there are cores, and, some fewer, as function trainables of Ray Tune that call the
same trial code with features from the object store. The columns: start-up, until the first trial
begins; wall, from then to the last record; orchestration, (workers x wall - the sum of
`train_seconds`) / trials; and how many times as long as foldgrid's a trial's orchestration is.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

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

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Figures:
    """Seconds of start-up and of the sweep, and beside training a trial."""

    start: float
    wall: float
    each: float


def figures(launched: float, workers: int, times: list[tuple[float, float, float]]) -> Figures:
    """From begin, wall and training time of each trial."""
    first = min(begun for begun, _, _ in times)
    wall = max(begun + took for begun, took, _ in times) - first
    trained = sum(seconds for _, _, seconds in times)
    return Figures(first - launched, wall, (workers * wall - trained) / len(times))


def foldgrid(spec: Path, out: Path, executor: str, workers: int) -> Figures:
    """One whole run."""
    command = [sys.executable, "-m", "orchestrator", "run", str(spec), "--out", str(out)]
    launched = time.time()
    subprocess.run([*command, "--executor", executor, "--quiet"], check=True, capture_output=True)
    with (out / "tables" / "timings.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    starts = [datetime.fromisoformat(row["started"]).timestamp() for row in rows]
    walls = [float(row["wall_seconds"]) for row in rows]
    trained = [float(row["train_seconds"]) for row in rows]
    return figures(launched, workers, list(zip(starts, walls, trained, strict=True)))


def functions(spec: Path, out: Path) -> Figures:
    """The same trials as function trainables, in a process of their own."""
    launched = time.time()
    command = [sys.executable, __file__, "--as-functions", str(spec), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    times = json.loads((out / "times.json").read_text(encoding="utf-8"))
    return figures(launched, CORES, [tuple(row) for row in times])


def run_functions(spec: Path, out: Path) -> None:
    """Run every trial as a function trainable; write begin, wall and training time of each."""
    import ray
    from ray import tune

    from features.cache import cache_root, features_of
    from orchestrator.plan import load_dataset, make_experiment
    from orchestrator.sweep import load_sweep
    from orchestrator.training import SplitData
    from orchestrator.trial import TrialInput

    sweep = load_sweep(spec, ())
    experiment = make_experiment(sweep, load_dataset(sweep))
    found = features_of(experiment.dataset, experiment.features[0], cache=cache_root(), workers=1)
    (split,) = experiment.splits
    rows = SplitData(*(np.array(part) for part in (split.train, split.val, split.test)))
    labels = np.array([clip.label for clip in experiment.dataset.clips], dtype=np.int64)
    trials = experiment.plan.trials

    def trainable(config: dict[str, int], features: object) -> None:
        from orchestrator.trial import run_trial

        begun, clock = time.time(), time.perf_counter()
        given = TrialInput(trials[config["trial"]], features, labels, rows, 10)
        record = run_trial(given)
        accuracy = record.val.scores.accuracy
        took = time.perf_counter() - clock
        row = {"begun": begun, "took": took, "trained": record.timing.train_seconds}
        tune.report(row | {"val_accuracy": accuracy})

    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    with_features = tune.with_parameters(trainable, features=np.asarray(found.array))
    tuner = tune.Tuner(
        tune.with_resources(with_features, {"cpu": 1}),
        param_space={"trial": tune.grid_search(list(range(len(trials))))},
        run_config=tune.RunConfig(storage_path=str(out / "tune"), verbose=0),
    )
    results = [result.metrics or {} for result in tuner.fit()]
    times = [[row["begun"], row["took"], row["trained"]] for row in results]
    (out / "times.json").write_text(json.dumps(times), encoding="utf-8")


def write_spec(folder: Path, trials: int) -> Path:
    """A specification of so many trials."""
    spec = folder / f"{trials}.yaml"
    grid = [round(0.00001 * i, 6) for i in range(trials)]
    spec.write_text(SPEC.replace("GRID", str(grid)), encoding="utf-8")
    return spec


def compare(folder: Path, trials: int, most_functions: int) -> None:
    """Run and print one size."""
    spec = write_spec(folder, trials)
    few = min(trials, most_functions)
    (folder / f"functions-{trials}").mkdir()
    found = [
        ("loop", trials, foldgrid(spec, folder / f"serial-{trials}", "serial", 1)),
        ("foldgrid", trials, foldgrid(spec, folder / f"ray-{trials}", "ray", CORES)),
        ("functions", few, functions(write_spec(folder, few), folder / f"functions-{trials}")),
    ]
    own = found[1][2].each
    for name, count, row in found:
        print(
            f"{name:12}{count:8}{row.start:12.1f}{row.wall:10.1f}{row.each:24.3f}"
            f"{row.each / own:10.2f}",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trials", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--functions", type=int, default=40, help="most function trainables")
    parser.add_argument("--as-functions", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_functions:
        run_functions(*options.as_functions)
        return
    print(f"{CORES} cores")
    titles = f"{'trials':>8}{'start-up s':>12}{'wall s':>10}{'orchestration s/trial':>24}"
    print(f"{'':12}{titles}{'ratio':>10}")
    with tempfile.TemporaryDirectory() as name:
        for trials in options.trials:
            compare(Path(name), trials, options.functions)


if __name__ == "__main__":
    main()
