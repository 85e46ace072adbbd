"""Memory of a sweep as its data grow: of the driver, each worker and the machine. Linux only.

    python tests/benchmarks/memory.py [--sizes 100 500 2000]

For each size a folder of short WAV files is made whose features (waveforms, looped) take so many
MB, and `foldgrid run` trains a small model on them on Ray, extraction included. Beside it what a
user might write instead: one process a core, each of which reads the features by `np.load` and
trains the same model. Five times a second /proc/PID/smaps_rollup of each process is read.

Peaks in MB while trials run (of the driver also before, while features are extracted and stored):
    private    anonymous pages: heaps, stacks, what was copied to be written to
    shared     the other resident ones: the object store, and files (libraries, cached features)
    all        sum over all processes of the sweep, a page that several have counted once (Pss)
    store      files in /dev/shm: the object store

The last line is the growth of each column from the smallest to the largest size, per MB of data:
0 is independent of the data, 1 is one copy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.provenance import usable_cores

RATE, SECONDS, WRITTEN = 16_000, 2.5, 0.1
CLIP_MB = RATE * SECONDS * 4 / 1e6
CLASSES, FOLDS = 4, 4

MODEL = """\
from torch import nn


def build(input_shape, classes):
    return nn.Sequential(nn.AvgPool1d(1000), nn.Flatten(), nn.LazyLinear(classes))
"""

NAIVE = """\
import sys
import numpy as np, torch
from torch import nn

torch.set_num_threads(1)
features = np.load(sys.argv[1])
labels = torch.arange(len(features)) % 4
model = nn.Sequential(nn.AvgPool1d(1000), nn.Flatten(), nn.LazyLinear(4))
optimizer = None
for epoch in range(4):
    for batch in torch.randperm(len(features)).split(16):
        loss = nn.functional.cross_entropy(model(torch.from_numpy(features[batch])), labels[batch])
        optimizer = optimizer or torch.optim.SGD(model.parameters(), 1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""


@dataclass
class Peaks:
    """The largest figures seen, MB, by process role and column."""

    values: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def see(self, name: str, value: float) -> None:
        """Keep the largest."""
        self.values[name] = max(self.values[name], value)


@dataclass(frozen=True)
class Memory:
    """Of one process, MB; see the columns of the table."""

    private: float
    shared: float
    pss: float


def memory(pid: int) -> Memory | None:
    """None for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return None
    mb = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}
    if not mb:
        return None
    return Memory(mb["Anonymous"], mb["Rss"] - mb["Anonymous"], mb["Pss"])


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            children[int(stat.rpartition(")")[2].split()[1])].append(int(entry.name))
    waiting = [pid]
    while waiting:
        yield (one := waiting.pop())
        waiting += children[one]


def role(pid: int, root: int) -> str:
    """What a process of the sweep does."""
    if pid == root:
        return "driver"
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return "other"
    if command.startswith("ray::") and "Trainable" in command:
        return "worker"
    return "raylet" if "/raylet" in command.split("\0")[0] else "other"


def store() -> float:
    """MB in /dev/shm."""
    sizes = os.statvfs("/dev/shm")
    return (sizes.f_blocks - sizes.f_bfree) * sizes.f_frsize / 1e6


def sample(root: int, peaks: Peaks, before: float) -> None:
    """Look at every process once."""
    processes = [(role(pid, root), found) for pid in family(root) if (found := memory(pid))]
    training = any(name == "worker" for name, _ in processes)
    for name, found in processes:
        phase = f"{name} before" if name == "driver" and not training else name
        peaks.see(f"{phase} private", found.private)
        peaks.see(f"{phase} shared", found.shared)
    peaks.see("workers", sum(name == "worker" for name, _ in processes))
    if training:
        peaks.see("all", sum(found.pss for _, found in processes))
        peaks.see("store", store() - before)


def watched(command: list[str], folder: Path) -> Peaks:
    """Run a command and look at it until it ends."""
    peaks, before = Peaks(), store()
    own = os.environ | {"FOLDGRID_CACHE": str(folder / "cache")}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, env=own, stdout=output, stderr=output)
        while process.poll() is None:
            sample(process.pid, peaks, before)
            time.sleep(0.2)
    if process.returncode:
        raise RuntimeError((folder / "output").read_text())
    return peaks


def naive(array: Path, workers: int) -> Peaks:
    """One process a core, each with the features to itself."""
    peaks = Peaks()
    command = [sys.executable, "-c", NAIVE, str(array)]
    crew = [subprocess.Popen(command) for _ in range(workers)]
    while any(process.poll() is None for process in crew):
        found = [m for process in crew if (m := memory(process.pid))]
        for one in found:
            peaks.see("naive private", one.private)
        peaks.see("naive all", sum(one.pss for one in found))
        time.sleep(0.2)
    if any(process.returncode for process in crew):
        raise RuntimeError("the naive script failed")
    return peaks


def write_clips(root: Path, clips: int) -> None:
    """Noise of a tenth of a second, each clip another one."""
    import numpy as np
    import soundfile

    for index in range(clips):
        path = root / f"class{index % CLASSES}" / f"{index:05d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).uniform(-0.5, 0.5, int(RATE * WRITTEN))
        soundfile.write(path, noise, RATE)


def write_specification(folder: Path) -> Path:
    """A sweep of four trials of some epochs, and its model."""
    (folder / "tiny.py").write_text(MODEL, encoding="utf-8")
    specification = {
        "data": {"dataset": "folder", "root": str(folder / "clips")},
        "features": {
            "kind": "waveform",
            "sample_rate": RATE,
            "seconds": SECONDS,
            "fit": "loop",
            "windows": None,
        },
        "folds": {"k": FOLDS, "test": None},
        "model": {"name": "tiny:build"},
        "train": {"epochs": 8, "optimizer": {"name": "sgd", "lr": 0.001}},
    }
    path = folder / "memory.yaml"
    path.write_text(json.dumps(specification), encoding="utf-8")
    return path


def measured(megabytes: int, workers: int) -> dict[str, float]:
    """Peaks of one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder / "clips", round(megabytes / CLIP_MB))
        specification = str(write_specification(folder))
        command = [sys.executable, "-m", "orchestrator", "run", specification]
        peaks = watched([*command, "--out", str(folder / "out"), "--quiet"], folder)
        array = next((folder / "cache").rglob("features.npy"))
        data = array.stat().st_size / 1e6
        alone = naive(array, workers)
        return {"data": data} | peaks.values | alone.values


COLUMNS = {
    "data": "data",
    "driver before private": "driver, before: private",
    "driver private": "driver: private",
    "driver shared": "shared",
    "worker private": "worker: private",
    "worker shared": "shared",
    "raylet private": "raylet: private",
    "all": "all",
    "store": "store",
    "naive private": "naive worker: private",
    "naive all": "all",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 500, 2000], help="MB")
    sizes = parser.parse_args().sizes
    if not Path("/proc/self/smaps_rollup").exists():
        sys.exit("this machine has no /proc/PID/smaps_rollup (Linux 4.14)")
    workers = usable_cores()
    found = [measured(size, workers) for size in sizes]
    print(f"MB, {found[-1]['workers']:.0f} workers")
    print("  ".join(COLUMNS.values()))
    widths = {key: len(title) for key, title in COLUMNS.items()}
    for row in found:
        print("  ".join(f"{row[key]:{width}.0f}" for key, width in widths.items()))
    first, last = found[0], found[-1]
    span = last["data"] - first["data"]
    if span:
        growth = {key: (last[key] - first[key]) / span for key in widths}
        print("  ".join(f"{growth[key]:{width}.2f}" for key, width in widths.items()))


if __name__ == "__main__":
    main()
