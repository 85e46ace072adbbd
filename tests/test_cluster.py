"""Sweeps on a real cluster: nodes that come and go, disks that are not shared, a head that dies."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

COMMAND = [sys.executable, "-m", "orchestrator.cli", "run"]

NOTING = """
import ray, time
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.layer = nn.Linear(channels, classes)

    def forward(self, x):
        if self.training and ray.is_initialized():
            both = len(list(Path(__file__).with_name("nodes").iterdir())) > 1
            time.sleep(0.02 if both else 0.1)
        return self.layer(x.mean(dim=2))

def build(input_shape, classes):
    if ray.is_initialized():
        node = ray.get_runtime_context().get_node_id()
        (Path(__file__).with_name("nodes") / node).touch()
    return Net(input_shape[0], classes)
"""
"""A model that leaves the identity of each node that it is built on; slow until there are two."""

TRAIN = {"epochs": 60, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}}


def rows(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@contextmanager
def cluster() -> Iterator[Any]:
    """A cluster whose head runs no trial and notices a dead node after two seconds."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    health = {
        "health_check_initial_delay_ms": 1000,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    head = {"num_cpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={**head, "_system_config": health})
    try:
        yield made
    finally:
        made.shutdown()


def add(made: Any) -> Any:
    return made.add_node(num_cpus=1, object_store_memory=100 * 2**20)


@contextmanager
def driver(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A driver in a process of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [*COMMAND, *(str(a) for a in arguments), "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait(process: subprocess.Popen[str], ready: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


def test_nodes_may_go_and_come_in_the_middle_of_a_sweep(
    foldgrid, tables_of, write_spec, tmp_path: Path
) -> None:
    (tmp_path / "noting.py").write_text(NOTING)
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    changes = {"checkpoint": {"every": 5}, "execution": {"max_failures": 0}, "repeats": 2}
    model, train = {"name": "noting:build"}, TRAIN | {"epochs": 50}
    folds = {"test": 1, "validate": [2, 3, 4]}
    spec = write_spec(model=model, folds=folds, train=train, **changes)
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert foldgrid("run", spec, "--out", whole, "--executor", "serial", "--quiet").code == 0
    with cluster() as made:
        first = add(made)
        with driver(spec, "--out", out, "--address", made.address) as process:
            wait(process, lambda: (nodes / first.node_id).exists())
            second = add(made)
            wait(process, lambda: (nodes / second.node_id).exists())
            # On whichever the next trial has begun, one of them loses one.
            made.remove_node(first, allow_graceful=False)
            _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert tables_of(out) == tables_of(whole)
    # A trial was lost with its node and counted as no failure.
    assert max(int(row["attempts"]) for row in rows(out, "timings")) == 2
    assert not list(out.glob("trials/*/failure.json"))


def hidden(path: Path) -> list[str]:
    """The start of a command in whose eyes a folder is empty."""
    return ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{path}" && exec "$@"', "sh"]


def may_hide(path: Path) -> bool:
    path.mkdir()
    return subprocess.run([*hidden(path), "true"], capture_output=True, check=False).returncode == 0


def test_workers_need_not_see_the_disk_of_the_driver(
    foldgrid, tables_of, write_spec, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not (sys.platform == "linux" and may_hide(tmp_path / "probe")):
        pytest.skip("needs mount namespaces")
    folds = {"test": 1, "validate": [2]}
    spec = write_spec(train=TRAIN | {"epochs": 40}, folds=folds, checkpoint={"every": 2})
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert foldgrid("run", spec, "--out", whole, "--executor", "serial", "--quiet").code == 0
    disk = tmp_path_factory.getbasetemp()
    with cluster() as made, blind_node(made, disk) as node:
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        options = ("--out", out, "--address", made.address)
        with driver(spec, *options, TMPDIR=str(temporary)) as process:
            wait(process, lambda: any(out.glob("trials/*/checkpoint.pt")))
            trial_process(node).kill()
            _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert tables_of(out) == tables_of(whole)
    assert "goes on from epoch" in (out / "log.txt").read_text(encoding="utf-8")


@contextmanager
def blind_node(made: Any, disk: Path) -> Iterator[psutil.Process]:
    """A node of one CPU that sees nothing below a folder."""
    start = ["--address", made.address, "--num-cpus=1", "--object-store-memory=100000000"]
    command = [str(Path(sys.executable).with_name("ray")), "start", *start, "--block"]
    node = subprocess.Popen(
        [*hidden(disk), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield psutil.Process(node.pid)
    finally:
        below = psutil.Process(node.pid).children(recursive=True)
        for process in [psutil.Process(node.pid), *below]:
            process.kill()
        node.wait()


def trial_process(node: psutil.Process) -> psutil.Process:
    """The process below a node that runs a trial."""
    for process in node.children(recursive=True):
        if "Trainable" in " ".join(process.cmdline()):
            return process
    raise AssertionError("no trial runs there")


def test_a_head_without_cores_is_given_time_for_a_node_to_join(write_spec, tmp_path: Path) -> None:
    folds = {"test": 1, "validate": [2]}
    spec, out = write_spec(train=TRAIN | {"epochs": 1}, folds=folds), tmp_path / "run"
    with cluster() as made, driver(spec, "--out", out, "--address", made.address) as process:
        log = out / "log.txt"
        wait(process, lambda: log.exists() and "no node has a core yet" in log.read_text("utf-8"))
        add(made)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors


def test_losing_the_ray_of_its_own_machine_ends_a_driver_in_one_line(
    write_spec, tmp_path: Path
) -> None:
    spec, out = write_spec(train=TRAIN), tmp_path / "run"
    with cluster() as made:
        add(made)
        with driver(spec, "--out", out, "--address", made.address) as process:
            wait(process, lambda: any(out.glob("trials/*/checkpoint.pt")))
            made.head_node.kill_raylet(check_alive=False)
            _, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1, errors
    assert "the Ray cluster was lost" in errors


def test_a_head_that_dies_ends_a_driver_in_one_line(
    write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = (
        "import orchestrator.head as h; h._SECONDS = 2; from orchestrator.cli import main; main()"
    )
    monkeypatch.setattr(sys.modules[__name__], "COMMAND", [sys.executable, "-c", hasty, "run"])
    spec, out = write_spec(train=TRAIN), tmp_path / "run"
    with cluster() as made:
        add(made)
        with driver(spec, "--out", out, "--address", made.address) as process:
            wait(process, lambda: any(out.glob("trials/*/checkpoint.pt")))
            made.head_node.kill_gcs_server(check_alive=False)
            _, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1, errors
    assert "its head" in errors


def test_a_head_that_answers_in_time_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from orchestrator import head

    monkeypatch.setattr(head, "_SECONDS", 1.0)
    monkeypatch.setattr(head, "_EVERY", 0.05)
    told = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with head.watched(f"127.0.0.1:{port}", lambda reason: told.set()):
        assert not told.wait(1.5)
        listener.close()
        assert not told.wait(0.5)
        listener = socket.create_server(("127.0.0.1", port))
        assert not told.wait(1.5)
        listener.close()
        assert told.wait(5)
