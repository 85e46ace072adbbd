"""Seconds a trial that foldgrid spends beside training, against a plain loop.

    python tests/benchmarks/orchestration.py [TRIALS]

One-epoch trials of `cnn1d` on a tiny part of the synthetic sounds, first in a plain loop over the
same trial code, then through Ray Tune with as many workers as there are cores. Printed for each:
start-up (until the first trial starts), wall time from then to the last record, and orchestration:
(workers x wall time - the sum of `train_seconds`) / trials.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

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


def measure(spec: Path, out: Path, executor: str, workers: int) -> tuple[float, float, float]:
    """Start-up, wall time and orchestration of one whole run, seconds."""
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(spec), "--out", str(out)]
    begun = time.time()
    subprocess.run([*command, "--executor", executor, "--quiet"], check=True, capture_output=True)
    with (out / "tables" / "timings.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    starts = [datetime.fromisoformat(row["started"]).timestamp() for row in rows]
    walls = [float(row["wall_seconds"]) for row in rows]
    ends = [start + wall for start, wall in zip(starts, walls, strict=True)]
    trained = sum(float(row["train_seconds"]) for row in rows)
    wall = max(ends) - min(starts)
    return min(starts) - begun, wall, (workers * wall - trained) / len(rows)


def main() -> None:
    """Print the table."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = folder / "spec.yaml"
        grid = [round(0.0001 * i, 6) for i in range(trials)]
        spec.write_text(SPEC.replace("GRID", str(grid)), encoding="utf-8")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        print(f"{trials} trials, {cores} cores")
        print(f"{'executor':10}{'start-up s':>12}{'wall s':>10}{'orchestration s/trial':>24}")
        walls = {}
        for executor, workers in (("serial", 1), ("ray", cores or 1)):
            start, wall, each = measure(spec, folder / executor, executor, workers)
            walls[executor] = wall
            print(f"{executor:10}{start:12.1f}{wall:10.1f}{each:24.3f}")
        print(f"ray is {walls['serial'] / walls['ray']:.2f} times as fast as the loop")


if __name__ == "__main__":
    main()
