"""How near a sweep comes to the machine's limit, beside what a user would do instead.

    pip install -e ".[benchmark]"
    python tests/benchmarks/efficiency.py [--epochs 10] [--rounds 3] [--few] [--only NAME ...]

24 trials on ESC-10 (ESC10_DIR; without it the synthetic sounds), `--few`: 6. In every round, one
after the other, each as a process of its own, on all cores:

limit     the trials' own code in one bare process a core, one thread each: nothing but training.
          The sum of the trials' seconds, divided by the cores, is what no sweep can be faster than.
foldgrid  `foldgrid run`, on Ray, with tables, plots and report.
skorch    scikit-learn's GridSearchCV with skorch and n_jobs = cores. It validates after each epoch
          as the others do, but has no test fold, rows by epoch, resume or cluster.
loop      a sequential script with DataLoaders and as many threads as cores.
tune      a function trainable of Ray Tune that loads the features from disk, one core each.

The columns: start-up, seconds from the launch of the process to the first trial's beginning; sweep,
from there to the last trial's end; after, from there to the end of the process; efficiency,
limit / sweep (medians over the rounds); whole, limit / (start-up + sweep + after).
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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from machine import CORES, start_ray


@dataclass(frozen=True)
class Timing:
    """Seconds of one process: until the first trial begins, until the last ends, and after it."""

    start: float
    sweep: float
    after: float

    @property
    def whole(self) -> float:
        """Seconds in all."""
        return self.start + self.sweep + self.after


def open_work(folder: Path) -> None:
    """Load what a bare process needs, once."""
    global work, features
    import numpy as np
    from sweep_work import load

    from orchestrator.trial import warm_up

    warm_up()
    work = load(folder)
    features = np.load(work.features)


def one_trial(folder: Path, index: int) -> float:
    """Run one trial with the trial code alone; its seconds of training."""
    import numpy as np
    from sweep_work import mark

    from orchestrator.training import SplitData
    from orchestrator.trial import TrialInput, run_trial

    trial = work.trials[index]
    split = work.splits[trial.fold]
    rows = SplitData(*(np.array(part) for part in (split.train, split.val, split.test)))
    mark(folder, "begins")
    record = run_trial(TrialInput(trial, features, work.labels, rows, work.classes))
    mark(folder, "ends")
    return float(record.timing.train_seconds)


def limit(folder: Path) -> None:
    """One bare process a core, longest trials first; writes the seconds of pure training."""
    from sweep_work import load

    trials = load(folder).trials
    order = sorted(range(len(trials)), key=lambda i: trials[i].configuration.model.name == "cnn1d")
    context = get_context("spawn")
    with ProcessPoolExecutor(CORES, context, open_work, (folder,)) as pool:
        pure = sum(pool.map(one_trial, [folder] * len(order), order))
    (folder / "pure.json").write_text(json.dumps(pure), encoding="utf-8")


def loop(folder: Path) -> None:
    """One trial after the other, on all cores."""
    import numpy as np
    import torch
    from sweep_work import load, mark, train_plainly

    torch.set_num_threads(CORES)
    work = load(folder)
    features = np.load(work.features)
    for trial in work.trials:
        mark(folder, "begins")
        train_plainly(work, features, trial.configuration, trial.fold)
        mark(folder, "ends")


def tune_function(folder: Path) -> None:
    """Ray Tune as its introduction shows it."""
    from ray import tune
    from sweep_work import load

    def trainable(config: dict[str, int]) -> None:
        import numpy as np
        import torch
        from sweep_work import load, mark, train_plainly

        torch.set_num_threads(1)
        work = load(folder)
        mark(folder, "begins")
        trial = work.trials[config["trial"]]
        features = np.load(work.features)
        for accuracy in train_plainly(work, features, trial.configuration, trial.fold):
            tune.report({"val_accuracy": accuracy})
        mark(folder, "ends")

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    start_ray()
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"trial": tune.grid_search(list(range(len(load(folder).trials))))},
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    )
    assert not tuner.fit().errors


def skorch_search(folder: Path) -> None:
    """GridSearchCV over both models; each fit validates on its fold after every epoch."""
    import numpy as np
    import torch
    from sklearn.model_selection import GridSearchCV
    from skorch import NeuralNetClassifier
    from skorch_net import LastClips, Marks, make_model
    from sweep_work import load

    work = load(folder)
    first = work.configurations[0].train
    validated = len(next(iter(work.splits.values())).val)
    net = NeuralNetClassifier(
        make_model,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=first.optimizer.lr,
        optimizer__momentum=0.9,
        optimizer__nesterov=True,
        optimizer__weight_decay=first.optimizer.weight_decay,
        max_epochs=first.epochs,
        batch_size=16,
        iterator_train__shuffle=True,
        train_split=LastClips(validated),
        callbacks=[Marks(folder)],
        verbose=0,
    )
    grid = {"module__configuration": work.configurations, "module__classes": [work.classes]}
    folds = [
        (np.array([*split.train, *split.val]), np.array(split.val))
        for split in work.splits.values()
    ]
    search = GridSearchCV(
        net, grid, scoring="accuracy", cv=folds, n_jobs=CORES, refit=False, error_score="raise"
    )
    search.fit(np.load(work.features), work.labels)


CONTENDERS: dict[str, Callable[[Path], None]] = {
    "limit": limit,
    "skorch": skorch_search,
    "loop": loop,
    "tune": tune_function,
}


def marks(folder: Path) -> tuple[float, float]:
    """The first beginning and the last end in `marks.txt`, which is removed."""
    path = folder / "marks.txt"
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    path.unlink()
    begun = min(float(when) for what, when in lines if what == "begins")
    return begun, max(float(when) for what, when in lines if what == "ends")


def trial_times(run_dir: Path) -> tuple[float, float]:
    """The first beginning and the last end in `timings.csv`."""
    with (run_dir / "tables" / "timings.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    starts = [datetime.fromisoformat(row["started"]).timestamp() for row in rows]
    walls = [float(row["wall_seconds"]) for row in rows]
    return min(starts), max(start + wall for start, wall in zip(starts, walls, strict=True))


def measure(name: str, folder: Path) -> Timing:
    """Run one contender as a process of its own."""
    command = [sys.executable, __file__, "--contender", name, str(folder)]
    out = folder / f"run-{time.time_ns()}"
    if name == "foldgrid":
        run = [sys.executable, "-m", "orchestrator", "run", str(folder / "spec.yaml"), "--quiet"]
        command = [*run, "--out", str(out)]
    launched = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ended = time.time()
    first, last = trial_times(out) if name == "foldgrid" else marks(folder)
    return Timing(first - launched, last - first, ended - last)


def main() -> None:
    """Print the table."""
    names = ["limit", "foldgrid", "skorch", "loop", "tune"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--only", nargs="+", choices=names[1:], default=names[1:])
    parser.add_argument("--contender", nargs=2)
    options = parser.parse_args()
    if options.contender:
        name, folder = options.contender
        CONTENDERS[name](Path(folder))
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Run the rounds and print their medians."""
    from sweep_work import prepare

    work = prepare(folder, options.epochs, options.few)
    print(f"{len(work.trials)} trials of {options.epochs} epochs, {CORES} cores", flush=True)
    pure: list[float] = []
    timings: dict[str, list[Timing]] = {name: [] for name in options.only}
    for i in range(options.rounds):
        measure("limit", folder)
        pure.append(json.loads((folder / "pure.json").read_text(encoding="utf-8")) / CORES)
        for name in options.only:
            timings[name].append(measure(name, folder))
        sweeps = ", ".join(f"{name} {found[-1].sweep:.1f} s" for name, found in timings.items())
        print(f"round {i + 1}: limit {pure[-1]:.1f} s, {sweeps}", flush=True)
    show(pure, timings)


def show(pure: list[float], timings: dict[str, list[Timing]]) -> None:
    """Print the table."""
    limit = median(pure)
    print(f"limit: {limit:.1f} s ({min(pure):.1f} to {max(pure):.1f})")
    titles = ("start-up s", "sweep s", "after s", "efficiency", "whole")
    print(f"{'':10}" + "".join(f"{title:>12}" for title in titles) + "   sweeps")
    for name, found in timings.items():
        start, sweep, after, whole = (
            median(getattr(timing, part) for timing in found)
            for part in ("start", "sweep", "after", "whole")
        )
        figures = (
            f"{start:12.1f}{sweep:12.1f}{after:12.1f}{limit / sweep:12.3f}{limit / whole:12.3f}"
        )
        spread = f"{min(t.sweep for t in found):.1f} to {max(t.sweep for t in found):.1f}"
        print(f"{name:10}{figures}   {spread}")


if __name__ == "__main__":
    main()
