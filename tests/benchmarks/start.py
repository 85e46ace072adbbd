"""How long foldgrid takes to start: its commands, and `run` until the first epoch.

    [ESC10_DIR=/path/to/ESC-10] python tests/benchmarks/start.py [--repeats 5]

Three kinds of rows, measured in turns, one after the other in each of five rounds (two on a
loaded machine are enough for a look); on two idle cores the whole takes about five minutes:

* `python` rows, the baselines: an interpreter that does nothing, one that imports PyTorch, Ray or
  pandas, and one that starts Ray and stops it again.
* `foldgrid` commands from the start of the process to its end; `plan` of the synthetic sounds, of
  ESC-10 where `ESC10_DIR` is set, and of 2,500 configurations on five folds.
* `run` rows: from the start of the process until its log says that the first trial begins its
  first epoch, on Ray and serially, with the features in the cache and with an empty one.

`median s` is the median of the wall time, `least` and `most` are the ends; `CPU s` is the median
of the processor time of the process and its children (of the commands only); `times` is the
median over that of the baseline named last.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SPEC = """\
data: {dataset: DATASET}
features: {kind: waveform, sample_rate: 16000, seconds: SECONDS}
folds: {test: 1}
model: {name: cnn1d}
train: {epochs: 1}
"""

MANY = """\
data: {dataset: synthetic}
features: {kind: log_mel, seconds: 1.0}
folds: {protocol: rotate}
model: {name: cnn_transformer, heads: {grid: [1, 2, 4, 8]}}
train:
  batch_size: {grid: [8, 16, 32, 64, 128]}
  optimizer: {name: adam, lr: {grid: NUMBERS}, weight_decay: {grid: FEW}}
"""

PYTHON = "python -c pass"
RAY = "python: ray.init and shutdown"
TIMEOUT = 300.0

Seconds = tuple[float, float | None]
"""Wall and, for whole processes, processor time."""


@dataclass
class Row:
    """One thing to measure, and what was found."""

    name: str
    measure: Callable[[], Seconds]
    baseline: str = PYTHON
    walls: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def whole(*command: str) -> Seconds:
    """A process from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, used


def until_first_epoch(spec: Path, executor: str, cache: Path, *, cold: bool) -> Seconds:
    """From the start of `run` until its first trial begins; it is interrupted then."""
    with tempfile.TemporaryDirectory(dir=spec.parent) as name:
        out, empty = Path(name) / "run", Path(name) / "cache"
        environment = os.environ | {"FOLDGRID_CACHE": str(empty if cold else cache)}
        words = ["run", str(spec), "--out", str(out), "--executor", executor, "--quiet"]
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not _begins(out / "log.txt"):
            if process.poll() is not None or time.perf_counter() - begun > TIMEOUT:
                process.kill()
                raise SystemExit(f"no trial began: foldgrid {' '.join(words)}")
            time.sleep(0.01)
        wall = time.perf_counter() - begun
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT)
        return wall, None


def _begins(log: Path) -> bool:
    try:
        return any(line.endswith(" begins") for line in log.read_text("utf-8").splitlines())
    except OSError:
        return False


def specifications(folder: Path) -> dict[str, Path]:
    """The data sets to start on."""
    found = {"synthetic": ("synthetic", "1.0")}
    if os.environ.get("ESC10_DIR"):
        found["ESC-10"] = ("esc10\n  root: ${ESC10_DIR}", "5.0")
    paths = {}
    for name, (dataset, seconds) in found.items():
        paths[name] = folder / f"{name}.yaml"
        data = f"data:\n  dataset: {dataset}"
        text = SPEC.replace("data: {dataset: DATASET}", data).replace("SECONDS", seconds)
        paths[name].write_text(text, encoding="utf-8")
    return paths


def rows(folder: Path) -> list[Row]:
    """Everything to measure."""
    python, foldgrid = sys.executable, (sys.executable, "-m", "orchestrator")
    specs = specifications(folder)
    many = folder / "many.yaml"
    numbers = [round(0.0001 * i, 5) for i in range(1, 26)]
    text = MANY.replace("NUMBERS", str(numbers)).replace("FEW", str(numbers[:5]))
    many.write_text(text, encoding="utf-8")
    start_ray = "import ray; ray.init(address='local', include_dashboard=False); ray.shutdown()"
    found = [
        Row(PYTHON, lambda: whole(python, "-c", "pass")),
        Row("python -c 'import pandas'", lambda: whole(python, "-c", "import pandas")),
        Row("python -c 'import torch'", lambda: whole(python, "-c", "import torch")),
        Row("python -c 'import ray'", lambda: whole(python, "-c", "import ray")),
        Row(RAY, lambda: whole(python, "-c", start_ray)),
        Row("foldgrid --help", lambda: whole(*foldgrid, "--help")),
        *(
            Row(f"foldgrid plan, {name}", lambda spec=spec: whole(*foldgrid, "plan", str(spec)))
            for name, spec in specs.items()
        ),
        Row("foldgrid plan, 12,500 trials", lambda: whole(*foldgrid, "plan", str(many))),
    ]
    cache = folder / "cache"
    for name, spec in specs.items():
        environment = os.environ | {"FOLDGRID_CACHE": str(cache)}
        subprocess.run(
            [*foldgrid, "features", str(spec)], check=True, env=environment, capture_output=True
        )
        for executor in ("ray", "serial"):
            baseline = RAY if executor == "ray" else "python -c 'import torch'"
            for cold in (False, True):
                found.append(_run_row(name, spec, executor, cache, baseline, cold=cold))
    return found


def _run_row(
    name: str, spec: Path, executor: str, cache: Path, baseline: str, *, cold: bool
) -> Row:
    title = f"run until epoch 0, {name}, {executor}, {'cold' if cold else 'cached'}"
    return Row(title, lambda: until_first_epoch(spec, executor, cache, cold=cold), baseline)


def print_table(found: list[Row]) -> None:
    """One line a row."""
    medians = {row.name: statistics.median(row.walls) for row in found}
    print(f"{'':46}{'median s':>9}{'least':>7}{'most':>7}{'CPU s':>7}{'times':>7}")
    for row in found:
        used = f"{statistics.median(row.processor):7.2f}" if row.processor else " " * 7
        times = medians[row.name] / medians[row.baseline]
        print(
            f"{row.name:46}{medians[row.name]:9.2f}{min(row.walls):7.2f}{max(row.walls):7.2f}"
            f"{used}{times:7.1f}  {row.baseline}"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    folder = Path(tempfile.mkdtemp())
    try:
        found = rows(folder)
        for _ in range(repeats):
            for row in found:
                wall, used = row.measure()
                row.walls.append(wall)
                row.processor += [] if used is None else [used]
        print_table(found)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
