"""The remaining time that a sweep shows, against what it then takes; and what the order saves.

    python tests/benchmarks/remaining_time.py [EPOCHS]

A sweep of unlike trials on the synthetic sounds: `cnn1d` and `cnn_transformer` with 1, 2 and 4
heads, batches of 8 and 32 clips, on four folds: 32 trials of 6 epochs (or of so many as are
given), by `foldgrid run` on Ray with a worker a core, on a terminal whose display is read.

The first table: the share of the time from the first trial's start to the last one's end, what
the display said was left then, what was left, and by how much the display was wrong. A machine
that gets busier in the middle makes it wrong, so let nothing else run.

The second table: the time of all trials, if they are started in plan order, longest first by the
guess that is known before anything runs, or longest first by their measured times, on so many
workers. It is calculated from the measured `wall_seconds` of the trials, and shown as a ratio to
the least possible: all of them over the workers, or the longest one.
"""

from __future__ import annotations

import csv
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchestrator.costs import Costs, longest_first
from orchestrator.experiment import load_dataset, make_experiment
from orchestrator.provenance import usable_cores
from orchestrator.remaining import makespan
from orchestrator.sweep import load_sweep

SPEC = """\
name: remaining_time
data: {dataset: synthetic}
features: {kind: log_mel, seconds: 2.0, n_mels: 40}
folds: {test: 1}
model:
  grid: [{name: cnn1d}, {name: cnn_transformer, heads: {grid: [1, 2, 4]}}]
train:
  epochs: EPOCHS
  batch_size: {grid: [8, 32]}
  optimizer: {name: sgd, lr: 1e-3}
"""

SHOWN = re.compile(r"epochs, about ((?:\d+ h )?(?:\d+ min)?(?: ?\d+ s)?) left")
WORKERS = (2, 4, 8, 16)
UNITS = {"h": 3600, "min": 60, "s": 1}


@dataclass(frozen=True)
class Estimate:
    """What the display said.

    Attributes:
        time: when, in seconds since 1970.
        left: seconds.
    """

    time: float
    left: float


def watch(screen: int, found: list[Estimate]) -> None:
    """Read a terminal until it is closed."""
    text = ""
    while True:
        try:
            data = os.read(screen, 65536)
        except OSError:
            return
        text = (text + data.decode(errors="replace"))[-4000:]
        shown = SHOWN.findall(text)
        if shown:
            words = shown[-1].split()
            pairs = zip(words[::2], words[1::2], strict=True)
            found.append(Estimate(time.time(), sum(int(n) * UNITS[u] for n, u in pairs)))


def run(spec: Path, out: Path) -> list[Estimate]:
    """Run the sweep on a terminal; every estimate that it shows."""
    found: list[Estimate] = []
    screen, terminal = pty.openpty()
    reader = threading.Thread(target=watch, args=(screen, found))
    reader.start()
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(spec), "--out", str(out)]
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=terminal, env=environment)
    os.close(terminal)
    reader.join()
    os.close(screen)
    return found


def timings(out: Path) -> dict[str, tuple[float, float]]:
    """When each trial began and ended, seconds since 1970."""
    with (out / "tables" / "timings.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    starts = [datetime.fromisoformat(row["started"]).timestamp() for row in rows]
    return {
        row["trial"]: (start, start + float(row["wall_seconds"]))
        for row, start in zip(rows, starts, strict=True)
    }


def show_estimates(found: list[Estimate], begin: float, end: float) -> None:
    """Print the first table."""
    print(f"{'after':>6}{'shown s':>10}{'left s':>10}{'wrong by':>10}")
    for share in (0.1, 0.25, 0.5, 0.75):
        now = begin + share * (end - begin)
        before = [estimate for estimate in found if estimate.time <= now]
        if not before:
            print(f"{share:6.0%}{'none':>10}{end - now:10.1f}")
            continue
        left = before[-1].left - (now - before[-1].time)
        print(f"{share:6.0%}{left:10.1f}{end - now:10.1f}{left / (end - now) - 1:10.0%}")


def show_orders(spec: Path, seconds: dict[str, float]) -> None:
    """Print the second table."""
    sweep = load_sweep(spec)
    experiment = make_experiment(sweep, load_dataset(sweep))
    trials = experiment.plan.trials
    guess = Costs(experiment.split_of)
    orders = {
        "plan order": trials,
        "longest first, by the guess": longest_first(trials, guess),
        "longest first, as measured": sorted(trials, key=lambda t: -seconds[t.id]),
    }
    print(f"\n{'workers':30}" + "".join(f"{workers:>8}" for workers in WORKERS))
    for name, order in orders.items():
        times = [seconds[trial.id] for trial in order]
        ratios = [makespan([], times, w) / max(sum(times) / w, *times) for w in WORKERS]
        print(f"{name:30}" + "".join(f"{ratio:8.3f}" for ratio in ratios))


def main() -> None:
    """Print the tables."""
    epochs = sys.argv[1] if len(sys.argv) > 1 else "6"
    workers = usable_cores()
    with tempfile.TemporaryDirectory() as name:
        spec, out = Path(name) / "spec.yaml", Path(name) / "out"
        spec.write_text(SPEC.replace("EPOCHS", epochs), encoding="utf-8")
        found = run(spec, out)
        taken = timings(out)
        begin, end = min(b for b, _ in taken.values()), max(e for _, e in taken.values())
        print(f"{len(taken)} trials of {epochs} epochs, {workers} workers, {end - begin:.1f} s\n")
        show_estimates(found, begin, end)
        show_orders(spec, {trial: e - b for trial, (b, e) in taken.items()})


if __name__ == "__main__":
    main()
