"""Trials an hour on a GPU for the first report's 12 x 100 epochs, alone against packed.

    python tests/benchmarks/gpu.py [--epochs 100] [--repeats 3]

Twelve trials as in configs/esc10_cnn_transformer.yaml (1, 2 and 4 heads on folds 2 to 5) on the
synthetic sounds, which have the shape and number of the report's clips. Each arrangement is a
whole run of the command line; those of one repeat follow one another, and medians are printed:

    trials a GPU   at once: 1, or what `gpu: auto` measured
    start-up s     from the command until the first trial starts, extraction left out (the first
                   run of all fills the cache and is not counted), trying trials out included
    training s     from then until the last trial's end
    trials/h       with start-up, and without
    ratio          of trials an hour without start-up, to those of one trial at a time
    val accuracy   mean of the twelve; packed trials give what they give alone, up to rounding

Without a GPU it says so and does nothing.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]

SPEC = """\
name: gpu
data: {dataset: synthetic}
features:
  kind: waveform
  sample_rate: 16000
  seconds: 5.0
  windows: {seconds: 1.0, hop: 0.5}
folds: {protocol: held_out, test: 1, validate: [2, 3, 4, 5]}
model: {name: cnn_transformer, heads: {grid: [1, 2, 4]}}
train:
  epochs: 100
  batch_size: 16
  optimizer: {name: sgd, lr: 1e-3, momentum: 0.9, nesterov: true, weight_decay: 0.001}
resources: {cpu: 1, gpu: auto}
"""

ALONE = ["--set", "resources.gpu=1", "--jobs", "1"]
BF16 = ["--set", "train.precision=bf16"]
ARRANGEMENTS = {
    "one at a time": ALONE,
    "packed": [],
    "one at a time, bf16": [*ALONE, *BF16],
    "packed, bf16": BF16,
}
HEADS = ("trials a GPU", "start-up s", "training s", "trials/h", "without", "ratio", "val accuracy")


@dataclass(frozen=True)
class Measured:
    """One run: how many trials shared a GPU, seconds, and the mean validation accuracy."""

    packed: str
    start: float
    training: float
    accuracy: float

    def rate(self, *, whole: bool) -> float:
        """Trials an hour, with start-up or without."""
        return 12 * 3600 / (self.training + (self.start if whole else 0.0))


def measure(folder: Path, name: str, options: list[str]) -> Measured:
    """Run the twelve trials once.

    Raises:
        SystemExit: the run did not end well.
    """
    out = Path(tempfile.mkdtemp(dir=folder)) / "out"
    command = [sys.executable, "-m", "orchestrator", "run", str(folder / "spec.yaml")]
    begun = time.time()
    done = subprocess.run(
        [*command, "--out", str(out), *options],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "FOLDGRID_CACHE": str(folder / "cache")},
    )
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stderr}")
    told = re.search(r"gpu: auto: (.*) trials? a GPU", done.stderr)
    timings = _rows(out, "timings.csv")
    starts = [datetime.fromisoformat(row["started"]).timestamp() for row in timings]
    walls = [float(row["wall_seconds"]) for row in timings]
    end = max(start + wall for start, wall in zip(starts, walls, strict=True))
    accuracies = [float(row["val_accuracy"]) for row in _rows(out, "trials.csv")]
    packed = told[1] if told else "1"
    return Measured(packed, min(starts) - begun, end - min(starts), statistics.mean(accuracies))


def _rows(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / "tables" / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def line(name: str, runs: list[Measured], base: list[Measured]) -> str:
    """One line of the table."""
    ratios = [b.training / r.training for r, b in zip(runs, base, strict=True)]
    cells = (
        runs[0].packed,
        f"{statistics.median(r.start for r in runs):.1f}",
        f"{statistics.median(r.training for r in runs):.1f}",
        f"{statistics.median(r.rate(whole=True) for r in runs):.0f}",
        f"{statistics.median(r.rate(whole=False) for r in runs):.0f}",
        f"{statistics.median(ratios):.2f}",
        f"{statistics.median(r.accuracy for r in runs):.4f}",
    )
    return f"{name:20}" + "".join(f"{cell:>14}" for cell in cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.yaml").write_text(SPEC, encoding="utf-8")
        measure(folder, "first", ["--set", "train.epochs=1"])
        runs: dict[str, list[Measured]] = {arrangement: [] for arrangement in ARRANGEMENTS}
        for _ in range(options.repeats):
            for arrangement, arguments in ARRANGEMENTS.items():
                epochs = ["--set", f"train.epochs={options.epochs}"]
                runs[arrangement].append(measure(folder, arrangement, [*arguments, *epochs]))
        print(f"12 trials of {options.epochs} epochs, {options.repeats} repeats")
        print(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}", end=", ")
        print(f"{os.cpu_count()} cores")
        print(" " * 20 + "".join(f"{head:>14}" for head in HEADS))
        for arrangement, measured in runs.items():
            print(line(arrangement, measured, runs["one at a time"]))


if __name__ == "__main__":
    main()
