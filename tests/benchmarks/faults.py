"""A sweep under random kills, against the same sweep undisturbed.

    python tests/benchmarks/faults.py [--trials 24] [--kills 30] [--own-kills 10] [--seed 0]
                                      [--epochs 8] [--delay 5] [--data auto|esc10|synthetic]
                                      [--reference ray|serial] [--out DIR]

Three sweeps of equal specification: undisturbed on a Ray of its own, or serially; on a real cluster
of three nodes on this machine with KILLS random kills of driver, workers and nodes; on a Ray of its
own with OWN_KILLS random kills of driver and workers. After each death of the driver the same
command is given again. Kills are drawn from SEED: each waits for a number of finished trials, then
for a random time, so that they fall into imports, feature extraction, training and the writing of
tables alike. Data are the ESC-10 clips in $ESC10_DIR, else the synthetic ones.

The exit code is 0 if every trial finished, every table but timings.csv is the same to the byte, no
result.json was written twice and no driver ended otherwise than it should.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"

NODES = 2
"""Beside the head, each of one CPU, as the head."""

SYSTEM = {
    # A dead node is noticed after two seconds, a silent one after some more.
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 4000,
    "health_check_failure_threshold": 4,
}
STORE = 100 * 2**20

SILENT = 300.0
"""Seconds without a new record after which a sweep counts as hanging."""


MODEL = """\
from pathlib import Path
import torch
from models.cnn1d import cnn1d
from models.cnn_transformer import cnn_transformer

BATCHES = Path(__file__).with_name("batches")


def count(module, inputs):
    if module.training and torch.is_grad_enabled():
        with BATCHES.open("ab", buffering=0) as stream:
            stream.write(b".")


def build(input_shape, classes, net="cnn1d"):
    channels = input_shape[0]
    if net == "cnn1d":
        model = cnn1d(channels, classes, "bands")
    else:
        model = cnn_transformer(channels, classes, "bands", heads=2, layers=1, dropout=0.2)
    model.register_forward_pre_hook(count)
    return model
"""
"""The two models of this program, with a byte on the disk for each batch that they train on."""


def specification(trials: int, epochs: int, esc10: bool) -> dict[str, Any]:
    """Trials in which a badly restored model, optimizer, schedule or generator shows."""
    data = {"dataset": "esc10", "root": "${ESC10_DIR}"} if esc10 else {"dataset": "synthetic"}
    folds = [2, 3, 4, 5]
    decays = max(1, trials // (2 * len(folds)))
    nets = {"grid": ["cnn1d", "cnn_transformer"]}
    return {
        "name": "faults",
        "data": data,
        "features": {"kind": "log_mel", "sample_rate": 8000, "seconds": 2.0, "n_mels": 32},
        "folds": {"test": 1, "validate": folds[: max(1, trials // (2 * decays))]},
        "model": {"name": "counted:build", "params": {"net": nets}},
        "train": {
            "epochs": epochs,
            "batch_size": 16,
            "optimizer": {
                "name": "sgd",
                "lr": 0.01,
                "momentum": 0.9,
                "weight_decay": {"grid": [round(0.001 * (i + 1), 6) for i in range(decays)]},
            },
            "schedule": {"name": "cosine"},
            "augment": {"spec_augment": True, "mixup": 0.4},
            "select": "best",
        },
        "checkpoint": {"every": 2},
        "execution": {"max_failures": 30},
    }


# What is killed, and when


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        kind: `driver`, `worker` or `node`.
        after: finished trials to wait for.
        delay: seconds to wait then.
        number: the signal for a driver.
        pause: seconds until there is a new node; a driver is started again at once.
    """

    kind: str
    after: int
    delay: float
    number: signal.Signals
    pause: float


def draw(seed: int, kills: int, trials: int, shares: dict[str, int], delay: float) -> list[Kill]:
    """Kills in the order in which they happen, of each kind its share."""
    rng = random.Random(seed)
    whole = sum(shares.values())
    kinds = [kind for kind, share in shares.items() for _ in range(round(kills * share / whole))]
    kinds = [*kinds, *["driver"] * kills][:kills]
    rng.shuffle(kinds)
    # Up to the last record: what is due after it falls into the writing of tables.
    paces = sorted(rng.randrange(trials) for _ in kinds)
    signals = rng.choices(
        [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], weights=[6, 1, 1], k=kills
    )
    return [
        Kill(kind, after, rng.uniform(0, delay), number, rng.uniform(0, 3))
        for kind, after, number in zip(kinds, paces, signals, strict=True)
    ]


# Where it happens


class OwnRay:
    """No cluster: each driver starts a Ray of its own."""

    options: tuple[str, ...] = ()

    def take_node(self, pause: float) -> None:
        """Refuse: there is one node."""
        raise AssertionError("a Ray of its own has no node to spare")


class RealCluster:
    """A head, on which drivers attach, and further nodes, each with processes of its own."""

    def __init__(self, rng: random.Random) -> None:
        from ray.cluster_utils import Cluster

        head = {"include_dashboard": False, "_system_config": SYSTEM}
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "object_store_memory": STORE, **head},
        )
        self._rng = rng
        self._nodes = [self._add() for _ in range(NODES)]
        self.options = ("--address", self._cluster.address)

    def take_node(self, pause: float) -> None:
        """Kill all processes of a node without grace, and add a new node after the pause."""
        node = self._nodes.pop(self._rng.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        time.sleep(pause)
        self._nodes.append(self._add())

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def end(self) -> None:
        """Stop every node."""
        self._cluster.shutdown()


@contextmanager
def real_cluster(seed: int) -> Iterator[RealCluster]:
    """A cluster for as long as the context lasts."""
    cluster = RealCluster(random.Random(seed))
    try:
        yield cluster
    finally:
        cluster.end()


# The sweep under kills


class Watch(threading.Thread):
    """Notes every result.json, and whether one changes once it is there."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(daemon=True)
        self.changed: list[str] = []
        self.newest = time.monotonic()
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._run_dir = run_dir
        self._ended = threading.Event()

    @property
    def count(self) -> int:
        """Records so far."""
        return len(self._seen)

    def run(self) -> None:
        """Look twenty times a second."""
        while not self._ended.wait(0.05):
            self.look()

    def look(self) -> None:
        """Compare what is there with what was there."""
        for path in self._run_dir.glob("trials/*/result.json"):
            found = path.stat()
            state = (found.st_mtime_ns, found.st_ino, found.st_size)
            if path not in self._seen:
                self.newest = time.monotonic()
            if self._seen.setdefault(path, state) != state:
                self.changed.append(path.parent.name)
                self._seen[path] = state
        self.changed += [p.parent.name for p in self._seen if not p.exists()]

    def end(self) -> None:
        """Look a last time."""
        self._ended.set()
        self.join()
        self.look()


@dataclass
class Story:
    """What happened to one sweep.

    Attributes:
        seconds: wall time from the first start to the last end.
        kills: how many of each kind, drivers by signal.
        starts: of the driver.
        batches: trained on, by all attempts together.
        faults: what should not have happened.
    """

    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    batches: int = 0
    faults: list[str] = field(default_factory=list)


class Sweep:
    """One command on one run directory, started again and again."""

    def __init__(self, spec: Path, run_dir: Path, options: tuple[str, ...], seed: int) -> None:
        self.run_dir = run_dir
        self._rng = random.Random(seed)
        self.story = Story()
        self.watch = Watch(run_dir)
        self._errors = run_dir.with_suffix(".err")
        run = [sys.executable, "-m", "orchestrator.cli", "run", str(spec), "--out", str(run_dir)]
        self._command = [*run, "--quiet", *options]
        self._driver: subprocess.Popen[bytes] | None = None
        self._batches = spec.with_name("batches")
        self._batches.unlink(missing_ok=True)
        self._begun = time.monotonic()
        self.watch.start()

    def start(self) -> None:
        """Give the command."""
        self.story.starts += 1
        with self._errors.open("ab") as errors:
            self._driver = subprocess.Popen(
                self._command, stdout=errors, stderr=errors, start_new_session=True
            )

    @property
    def ended(self) -> bool:
        """Whether no driver runs."""
        return self._driver is None or self._driver.poll() is not None

    def kill_driver(self, number: signal.Signals) -> None:
        """End the driver by a signal, and start it again."""
        assert self._driver is not None
        self._driver.send_signal(number)
        try:
            code = self._driver.wait(120)
        except subprocess.TimeoutExpired:
            self.fault(f"a driver lived for two minutes after {number.name}")
            self._driver.kill()
            code = self._driver.wait()
        # One that had just ended, or was not ready to save yet, is none.
        if code not in (-number, 130, 0):
            self.fault(f"exit code {code} after {number.name}: {self._said()}")
        self.start()

    def kill_worker(self) -> bool:
        """Kill a process that runs a trial; False where there is none."""
        workers = trial_processes()
        if not workers:
            return False
        self._rng.choice(workers).kill()
        return True

    def go_on(self) -> None:
        """Start the driver again if it ended by itself, which only a finished sweep may."""
        if not self.ended:
            return
        assert self._driver is not None
        if self._driver.returncode != 0:
            self.fault(f"a driver ended by itself with {self._driver.returncode}: {self._said()}")
        self.start()

    def wait(self, ready: Callable[[], bool]) -> bool:
        """Wait until something is so; False where the sweep ends or hangs before."""
        while not ready():
            if self.ended or self.hangs():
                return False
            time.sleep(0.02)
        return True

    def hangs(self) -> bool:
        """Whether nothing has come for long."""
        return time.monotonic() - self.watch.newest > SILENT

    def finish(self) -> None:
        """Let the sweep come to its end; a driver may have to be started some more times."""
        for _ in range(5):
            self.wait(lambda: False)
            if self.hangs() and not self.ended:
                self.fault(f"nothing for {SILENT:.0f} s: {self._said()}")
                assert self._driver is not None
                self._driver.kill()
                self._driver.wait()
                break
            assert self._driver is not None
            if self._driver.returncode == 0:
                break
            self.fault(f"a driver ended by itself with {self._driver.returncode}: {self._said()}")
            self.start()
        self.story.seconds = time.monotonic() - self._begun
        self.story.batches = self._batches.stat().st_size
        self.watch.end()

    def fault(self, text: str) -> None:
        """Note what should not have happened."""
        self.story.faults.append(text)

    def _said(self) -> str:
        lines = self._errors.read_text(encoding="utf-8", errors="replace").splitlines()
        return " / ".join(lines[-3:])


def trial_processes() -> list[psutil.Process]:
    """The processes below this one in which Ray runs a trial."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::") and "Trainable" in name:
            found.append(process)
    return found


def disturbed(sweep: Sweep, place: OwnRay | RealCluster, kills: list[Kill]) -> None:
    """Run the sweep to its end with all the kills."""
    sweep.start()
    for kill in kills:
        _wait_for(sweep, kill)
        sweep.go_on()
        kind = carry_out(kill, sweep, place)
        sweep.story.kills[kind] += 1
        print(f"{sweep.watch.count:4} records, then {kind}", flush=True)
    sweep.finish()


def carry_out(kill: Kill, sweep: Sweep, place: OwnRay | RealCluster) -> str:
    """Kill, and say what was killed: the driver where nothing is left to train."""
    if kill.kind == "node" and not sweep.ended:
        place.take_node(kill.pause)
        return "node"
    some = kill.kind == "worker" and sweep.wait(lambda: bool(trial_processes()))
    if some and sweep.kill_worker():
        return "worker"
    sweep.go_on()
    sweep.kill_driver(kill.number)
    return f"driver {kill.number.name}"


def _wait_for(sweep: Sweep, kill: Kill) -> None:
    if sweep.wait(lambda: sweep.watch.count >= kill.after):
        due = time.monotonic() + kill.delay
        sweep.wait(lambda: time.monotonic() >= due)


# What came out


def table_files(run_dir: Path) -> dict[str, bytes]:
    """The tables that must be equal."""
    paths = sorted((run_dir / "tables").glob("*.csv"))
    return {path.name: path.read_bytes() for path in paths if path.name != "timings.csv"}


def rows(run_dir: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table."""
    with (run_dir / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def verdict(sweep: Sweep, expected: dict[str, bytes], trials: int) -> list[str]:
    """What is not as it should be after a sweep."""
    faults = list(sweep.story.faults)
    found = table_files(sweep.run_dir)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            faults.append(f"tables/{name} differs")
    finished = sum(row["status"] == "finished" for row in rows(sweep.run_dir, "trials"))
    if finished != trials:
        faults.append(f"{finished} of {trials} trials finished")
    faults += [f"{name}: result.json changed" for name in sorted(set(sweep.watch.changed))]
    return faults


def show(name: str, sweep: Sweep, undisturbed: Story) -> None:
    """Print the figures of a sweep beside those of the undisturbed one."""
    story = sweep.story
    epochs = len(rows(sweep.run_dir, "epochs"))
    attempts = [int(row["attempts"]) for row in rows(sweep.run_dir, "timings")]
    print(f"\n{name}")
    for kind, count in sorted(story.kills.items()):
        print(f"  kills of {kind:24}{count:8}")
    for label, value in (
        ("kills", sum(story.kills.values())),
        ("starts of the driver", story.starts),
        ("most attempts at a trial", max(attempts, default=0)),
        ("records", sweep.watch.count),
        ("records changed", len(set(sweep.watch.changed))),
    ):
        print(f"  {label:33}{value:8}")
    again = story.batches / undisturbed.batches
    print(f"  {'epochs in the tables':33}{epochs:8}")
    print(f"  {'epochs trained by all attempts':33}{epochs * again:8.1f}")
    print(f"  {'against undisturbed':33}{again:8.2f}")
    print(f"  {'wall time, s':33}{story.seconds:8.1f}")
    print(f"  {'against undisturbed':33}{story.seconds / undisturbed.seconds:8.2f}")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--own-kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--delay", type=float, default=5.0, help="most seconds before a kill")
    parser.add_argument("--data", choices=["auto", "esc10", "synthetic"], default="auto")
    parser.add_argument("--reference", choices=["ray", "serial"], default="ray")
    parser.add_argument("--out", type=Path, help="keep the run directories here")
    return parser.parse_args()


def run(given: argparse.Namespace, folder: Path) -> list[str]:
    """Run the sweeps and print what came out; what is wrong."""
    spec = folder / "faults.yaml"
    esc10 = given.data == "esc10" or (given.data == "auto" and "ESC10_DIR" in os.environ)
    document = specification(given.trials, given.epochs, esc10)
    spec.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    (folder / "counted.py").write_text(MODEL, encoding="utf-8")
    whole = Sweep(spec, folder / "undisturbed", ("--executor", given.reference), given.seed)
    disturbed(whole, OwnRay(), [])
    expected = table_files(whole.run_dir)
    trials = len(rows(whole.run_dir, "trials"))
    show(f"undisturbed, {trials} trials", whole, whole.story)
    faults = verdict(whole, expected, trials)
    if given.kills:
        shares = {"driver": 2, "worker": 2, "node": 1}
        with real_cluster(given.seed) as cluster:
            sweep = Sweep(spec, folder / "cluster", cluster.options, given.seed)
            disturbed(sweep, cluster, draw(given.seed, given.kills, trials, shares, given.delay))
        show("on a cluster of three nodes", sweep, whole.story)
        faults += verdict(sweep, expected, trials)
    if given.own_kills:
        shares = {"driver": 1, "worker": 1}
        sweep = Sweep(spec, folder / "own", (), given.seed)
        disturbed(
            sweep, OwnRay(), draw(given.seed + 1, given.own_kills, trials, shares, given.delay)
        )
        show("on a Ray of its own", sweep, whole.story)
        faults += verdict(sweep, expected, trials)
    return faults


def main() -> None:
    """Run, and exit with 1 if anything is not as it should be."""
    given = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = (given.out or Path(name)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        faults = run(given, folder)
    print("\n" + "\n".join(f"FAULT: {fault}" for fault in faults) if faults else "\nno fault")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
