"""The driver's death: signals and kills at any moment, a closed terminal, two drivers at once."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PROGRAM = [sys.executable, "-m", "orchestrator"]
SERIAL = ("--executor", "serial")
SOME = {"epochs": 30, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}}

Process = subprocess.Popen[str]


def wait(until: Callable[[], object], process: Process, seconds: float = 120) -> None:
    """Wait for a condition while the process lives."""
    deadline = time.monotonic() + seconds
    while not until():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(process: Process, seconds: float = 10) -> None:
    """Wait until nothing is left of a process's group: its helpers take a moment to notice."""
    deadline = time.monotonic() + seconds
    while left := members(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def results(run_dir: Path) -> list[Path]:
    return list(run_dir.glob("trials/*/result.json"))


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.name.endswith(".tmp") or "unfinished" in p.name]


def members(session: int) -> list[int]:
    """Living processes of a session."""
    done = subprocess.run(
        ["ps", "-e", "-o", "pid=,sess=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return [int(pid) for pid, sess, stat in rows if sess == str(session) and stat[0] != "Z"]


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start the program in a session of its own; what is left of it is killed in the end."""
    started: list[Process] = []

    def start(*arguments: object, **options: Any) -> Process:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        command = [*PROGRAM, *(str(a) for a in arguments)]
        process = subprocess.Popen(command, text=True, start_new_session=True, **streams)
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, bytes]]:
    return {}


@pytest.fixture
def undisturbed(kept, foldgrid, tables_of, write_spec, tmp_path: Path) -> dict[str, bytes]:
    """The tables of a run of `SOME` that nothing happens to."""
    if not kept:
        whole = tmp_path / "whole"
        assert foldgrid("run", write_spec(train=SOME), "--out", whole, *SERIAL).code == 0
        kept["tables"] = tables_of(whole)
    return kept["tables"]


# Signals

BLOCKED = """
import os, time
open(os.environ["READY"], "w").close()
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_program_is_imported(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    (tmp_path / "typer.py").write_text(BLOCKED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path[:2]]))
    monkeypatch.setenv("READY", str(tmp_path / "ready"))
    process = start("plan", "spec.yaml")
    wait((tmp_path / "ready").exists, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "")


HANGING = """
import time
from pathlib import Path
from torch import nn

class Hanging(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(16, classes)

    def forward(self, x):
        Path(__file__).with_name("hangs").touch()
        time.sleep(600)

def build(input_shape, classes):
    return Hanging(classes)
"""


def test_a_second_signal_ends_the_program_whatever_it_does(
    start, write_spec, tmp_path: Path
) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    spec = write_spec(model={"name": "hanging:build"})
    process = start("run", spec, "--out", tmp_path / "run", *SERIAL)
    wait((tmp_path / "hangs").exists, process)
    assert (tmp_path / "run" / "log.txt").exists()
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    assert "Traceback" not in process.communicate()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_while_features_are_extracted(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("FOLDGRID_CACHE", str(cache))
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "data: {dataset: synthetic}\nmodel: {name: cnn1d}\n"
        "features: {kind: waveform, sample_rate: 44100, seconds: 30.0}\n"
    )
    process = start("features", spec)
    wait(lambda: list(cache.glob("unfinished-*/features.npy")), process)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted while features were extracted")
    assert "Traceback" not in err
    assert list(cache.iterdir()) == []
    gone(process)


def test_two_signals_while_clips_are_decoded_leave_the_cursor_visible(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("FOLDGRID_CACHE", str(cache))
    monkeypatch.setenv("TERM", "xterm")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "data: {dataset: synthetic}\nmodel: {name: cnn1d}\n"
        "features: {kind: waveform, sample_rate: 44100, seconds: 30.0}\n"
    )
    screen, end = pty.openpty()
    process = start("features", spec, stderr=end, stdin=subprocess.DEVNULL)
    os.close(end)
    wait(lambda: list(cache.glob("unfinished-*/features.npy")), process)
    shown = b""
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.15)
    with suppress(OSError):
        while block := os.read(screen, 65536):
            shown += block
    os.close(screen)
    process.wait(timeout=30)
    assert b"\x1b[?25l" in shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")


@pytest.mark.ray
@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_sweep_on_ray_makes_no_trial_fail(
    start, write_spec, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    long = SOME | {"epochs": 2000}
    process = start("run", write_spec(train=long), "--out", out, "--set", "checkpoint.every=5")
    wait(lambda: list(out.glob("trials/*/*.pt")), process)
    os.killpg(process.pid, signal.SIGTERM)
    out_text, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "to continue: foldgrid run" in out_text
    assert list(out.glob("trials/*/failure.json")) == []
    assert list(out.glob("trials/*/*.pt"))
    assert (out / "tables" / "trials.csv").read_text().count("pending") == 4
    deadline = time.monotonic() + 30
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    gone(process)


def test_a_closed_terminal_saves_and_the_same_command_goes_on_without_any(
    start, undisturbed, tables_of, write_spec, tmp_path: Path
) -> None:
    def own_terminal() -> None:
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)

    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    out = tmp_path / "run"
    command = ("run", write_spec(train=SOME), "--out", out, *SERIAL)
    terminal, end = pty.openpty()
    process = start(*command, stdin=end, stdout=end, stderr=end, preexec_fn=own_terminal)
    os.close(end)
    wait(lambda: results(out), process)
    os.close(terminal)
    assert process.wait(timeout=60) == 130
    done = len(results(out))
    assert (out / "tables" / "trials.csv").read_text().count("finished") == done < 4

    reader, writer = os.pipe()
    process = start(*command, stdout=writer, stderr=writer, preexec_fn=nohup)
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert tables_of(out) == undisturbed


# Kills


def test_a_run_killed_again_and_again_gives_the_same_tables(
    start, undisturbed, tables_of, write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    spec, out, cache = write_spec(train=SOME), tmp_path / "run", tmp_path / "cache"
    monkeypatch.setenv("FOLDGRID_CACHE", str(cache))
    moments: list[Callable[[], object]] = [
        lambda: cache.exists() and any(cache.iterdir()),
        lambda: len(results(out)) >= 1,
        lambda: len(results(out)) >= 3,
        lambda: (out / "tables").exists(),
        lambda: (out / "plots").exists(),
        lambda: (out / "report.html").exists(),
    ]
    for moment in moments:
        process = start("run", spec, "--out", out, *SERIAL)
        wait(moment, process)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.wait()
    process = start("run", spec, "--out", out, *SERIAL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert tables_of(out) == undisturbed
    assert leftovers(out) == leftovers(cache) == []


# Two at once


def test_of_two_runs_on_one_directory_one_is_refused_and_others_are_not_disturbed(
    start, undisturbed, tables_of, write_spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run shares the cold cache, and reports are made while it runs."""
    monkeypatch.setenv("FOLDGRID_CACHE", str(tmp_path / "cache"))
    spec, same, other = write_spec(train=SOME), tmp_path / "same", tmp_path / "other"
    first, second, third = (
        start("run", spec, "--out", out, *SERIAL) for out in (same, same, other)
    )
    wait(lambda: results(other), third)
    report = start("report", other)
    (_, complaint), code = report.communicate(timeout=180), report.returncode
    assert (code, complaint) == (0, "")
    ended = [(p.communicate(timeout=180)[1], p.returncode) for p in (first, second, third)]
    assert sorted(code for _, code in ended[:2]) == [0, 2]
    assert ended[2][1] == 0, ended[2]
    (refused,) = (err for err, code in ended if code == 2)
    assert refused.splitlines() == [f"{same}: another run is using it"]
    assert tables_of(same) == tables_of(other) == undisturbed
    assert leftovers(tmp_path / "cache") == []
