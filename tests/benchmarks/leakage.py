"""How much a random split by windows overstates: ESC-10 in windows of one second, twice.

    ESC10_DIR=/path/to/ESC-10 python tests/benchmarks/leakage.py [--seconds 1.0] [--epochs 15]

Every clip is cut into windows that do not overlap; silent ones are left out. The same model is
cross-validated over five folds of them, each fold validating once:

    by recording   the data set's own folds: the windows of a recording stay together
    by window      windows are dealt out at random, stratified by class: windows of one recording
                   train and validate; foldgrid refuses that without `data.allow_leakage`

Columns: the windows, the accuracy on each fold's windows at the last epoch, mean and standard
deviation, and the seconds that the sweep took. On two idle cores the whole takes a few minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from features.audio import read_waveform
from features.datasets import load_esc10
from features.inspection import SILENCE

RATE = 16_000


def cut(esc10: Path, folder: Path, seconds: float) -> int:
    """Write the windows and two manifests, with the data set's folds and without folds."""
    rows = list(_windows(esc10, folder, seconds))
    for name, columns in (("recording", 4), ("window", 3)):
        header = ["path", "label", "source", "fold"][:columns]
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header, *(row[:columns] for row in rows)])
    return len(rows)


def _windows(esc10: Path, folder: Path, seconds: float) -> Iterator[list[Any]]:
    """Path, label, source and fold of each window, which is written."""
    dataset = load_esc10(esc10)
    for number, clip in enumerate(dataset.clips):
        waveform, rate = read_waveform(dataset, clip)
        length = round(seconds * rate)
        for start in range(0, len(waveform) - length + 1, length):
            window = waveform[start : start + length]
            if abs(window).max() >= SILENCE:
                path = f"{number:03d}-{start // length}.wav"
                soundfile.write(folder / path, window, rate)
                yield [path, dataset.classes[clip.label], clip.source, clip.fold]


def specification(folder: Path, name: str, arguments: argparse.Namespace) -> Path:
    """The sweep on one of the manifests."""
    own = {"by window": {"k": 5, "group": False}}.get(name, {})
    manifest = folder / f"{name.removeprefix('by ')}.csv"
    document = {
        "data": {
            "dataset": "manifest",
            "manifest": str(manifest),
            "allow_leakage": name == "by window",
        },
        "features": {
            "kind": "log_mel",
            "sample_rate": RATE,
            "seconds": arguments.seconds,
            "hop_length": 256,
        },
        "folds": {"protocol": "cross_validation", **own},
        "model": {"name": "cnn1d"},
        "train": {
            "epochs": arguments.epochs,
            "batch_size": 32,
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01},
        },
    }
    path = folder / f"{manifest.stem}.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def foldgrid(*words: str) -> subprocess.CompletedProcess[str]:
    """A command of foldgrid."""
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def cross_validated(spec: Path) -> tuple[list[float], int, float]:
    """Validation accuracy of each fold, pairs of near-identical windows, seconds."""
    out, begun = spec.with_suffix(""), time.perf_counter()
    done = foldgrid("run", str(spec), "--out", str(out), "--quiet")
    if done.returncode:
        raise SystemExit(done.stderr)
    with (out / "tables" / "trials.csv").open(encoding="utf-8", newline="") as stream:
        scores = [float(row["val_accuracy"]) for row in csv.DictReader(stream)]
    near = out / "tables" / "near_duplicates.csv"
    pairs = len(near.read_text(encoding="utf-8").splitlines()) - 1 if near.exists() else 0
    return scores, pairs, time.perf_counter() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window")
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        windows = cut(Path(os.environ["ESC10_DIR"]), folder, arguments.seconds)
        specs = {s: specification(folder, s, arguments) for s in ("by recording", "by window")}
        refused = foldgrid("plan", str(specs["by window"]), "--set", "data.allow_leakage=false")
        print(f"{windows} windows; by window, without data.allow_leakage: exit code ", end="")
        print(refused.returncode)
        print(f"{'':14}{'accuracy on folds 1 to 5':>40}{'mean':>8}{'std':>8}{'near':>6}{'s':>6}")
        for split, spec in specs.items():
            scores, pairs, seconds = cross_validated(spec)
            each = "".join(f"{score:8.3f}" for score in scores)
            mean, deviation = statistics.mean(scores), statistics.pstdev(scores)
            print(f"{split:14}{each}{mean:8.3f}{deviation:8.3f}{pairs:6}{seconds:6.0f}", flush=True)


if __name__ == "__main__":
    main()
