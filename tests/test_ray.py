"""Sweeps on a real Ray: equal tables, failures, kills."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray

COMMAND = [sys.executable, "-m", "orchestrator.cli", "run"]


LONG = {"epochs": 40, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.001}}


def rows(run_dir: Path, name: str) -> list[dict[str, str]]:
    with (run_dir / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def started(run_dir: Path) -> list[str]:
    """The trials in the order in which they started."""
    timings = sorted(rows(run_dir, "timings"), key=lambda row: row["started"])
    return [row["trial"] for row in timings]


BOTH_MODELS: dict[str, Any] = {
    "grid": [{"name": "cnn1d"}, {"name": "cnn_transformer", "heads": {"grid": [1, 2]}}]
}


def test_ray_and_serial_give_the_same_tables(
    foldgrid, tables_of, write_spec, tmp_path: Path, ray_address: str
) -> None:
    features = {"kind": "log_mel", "sample_rate": 8000, "seconds": 0.5, "hop_length": 128}
    spec = write_spec(model=BOTH_MODELS, features=features)
    runs = {
        "serial": ("--executor", "serial"),
        "two": ("--address", ray_address),
        "one": ("--address", ray_address, "--jobs", "1"),
    }
    for name, options in runs.items():
        result = foldgrid("run", spec, "--out", tmp_path / name, "--quiet", *options)
        assert result.code == 0, result.err
    serial = tables_of(tmp_path / "serial")
    assert len(rows(tmp_path / "serial", "trials")) == 6
    assert len(serial) > 10
    assert tables_of(tmp_path / "two") == serial
    assert tables_of(tmp_path / "one") == serial
    starts = [started(tmp_path / name) for name in ("serial", "one")]
    # The long ones of all folds first, equally long ones in plan order.
    assert starts[0] == starts[1]
    assert [trial.partition("-")[0] for trial in starts[0]] == 4 * ["cnn_transformer"] + 2 * [
        "cnn1d"
    ]
    assert ["-f2-" in trial for trial in starts[0]] == [True, True, False, False, True, False]


def test_two_feature_kinds_in_one_sweep(
    foldgrid, write_spec, tmp_path: Path, ray_address: str
) -> None:
    shared = {"sample_rate": 8000, "seconds": 0.6}
    kinds = [{"kind": "log_mel", "hop_length": 128} | shared, {"kind": "waveform"} | shared]
    spec = write_spec(model={"name": "cnn1d"}, features={"grid": kinds})
    out = tmp_path / "run"
    result = foldgrid("run", spec, "--out", out, "--quiet", "--address", ray_address)
    assert result.code == 0, result.err
    assert [t["features.kind"] for t in rows(out, "trials")] == ["log_mel", "waveform"] * 2


DYING = """
import os, signal, time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from torch import nn

class Dying(nn.Module):
    def __init__(self, channels, classes, how):
        super().__init__()
        self.how, self.flag = how, Path(__file__).with_name("flag")
        self.layer = nn.Linear(channels, classes)

    def forward(self, x):
        if self.how == "killed once" and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "killed always":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exits":
            raise SystemExit("enough")
        if self.how == "hangs":
            time.sleep(1000)
        if self.how == "is stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        return self.layer(x.mean(dim=2))

def build(input_shape, classes, how="lives"):
    return Dying(input_shape[0], classes, how)
"""


def test_a_worker_that_dies_is_tried_again_and_the_others_go_on(
    foldgrid, write_spec, tmp_path: Path, ray_address: str
) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    ways = ["killed once", "killed always", "exits", "lives"]
    model = {"name": "dying:build", "params": {"how": {"grid": ways}}}
    spec = write_spec(model=model, folds={"test": 1, "validate": [2]})
    out = tmp_path / "run"
    options = ("--address", ray_address, "--set", "execution.max_failures=1", "--jobs", "1")
    result = foldgrid("run", spec, "--out", out, "--quiet", *options)
    assert result.code == 1, result.err
    trials = {t["model.params.how"]: t for t in rows(out, "trials")}
    assert {way: trials[way]["status"] for way in ways} == {
        "killed once": "finished",
        "killed always": "failed",
        "exits": "failed",
        "lives": "finished",
    }
    assert "died" in trials["killed always"]["error"]
    assert trials["exits"]["error"] == "SystemExit: enough"
    attempts = {t["trial"]: t["attempts"] for t in rows(out, "timings")}
    assert attempts[trials["killed once"]["trial"]] == "2"
    assert attempts[trials["lives"]["trial"]] == "1"


def test_a_worker_that_hangs_is_ended_and_the_others_go_on(
    foldgrid, write_spec, tmp_path: Path, ray_address: str
) -> None:
    (tmp_path / "hanging.py").write_text(DYING)
    ways = ["hangs", "is stopped", "lives"]
    model = {"name": "hanging:build", "params": {"how": {"grid": ways}}}
    spec = write_spec(model=model, folds={"test": 1, "validate": [2]})
    out = tmp_path / "run"
    sets = ("execution.max_failures=1", "execution.trial_timeout=5")
    options = [word for text in sets for word in ("--set", text)]
    result = foldgrid("run", spec, "--out", out, "--quiet", "--address", ray_address, *options)
    assert result.code == 1, result.err
    trials = {t["model.params.how"]: t for t in rows(out, "trials")}
    expected = "TrialTimeout: no end within 5 s (execution.trial_timeout)"
    assert [trials[way]["error"] for way in ways] == [expected, expected, ""]
    story = (out / "trials" / trials["hangs"]["trial"] / "traceback.txt").read_text()
    assert "hanging.py" in story.split("ActorDiedError")[0]
    log = (out / "log.txt").read_text()
    for way in ways[:2]:
        assert log.count(f"{trials[way]['trial']} begins") == 2


DYING_LATE = """
import os, signal
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from torch import nn

class DyingLate(nn.Module):
    def __init__(self, channels, classes, epoch):
        super().__init__()
        self.epoch, self.flag = epoch, Path(__file__).with_name("flag")
        self.layer = nn.Linear(channels, classes)
        self.register_buffer("epochs", nn.Parameter(self.layer.bias[:1] * 0, False))

    def train(self, mode=True):
        if mode:
            self.epochs += 1
        return super().train(mode)

    def forward(self, x):
        if int(self.epochs) == self.epoch and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layer(x.mean(dim=2))

def build(input_shape, classes, epoch):
    return DyingLate(input_shape[0], classes, epoch)
"""


@pytest.mark.parametrize("storage", [False, True], ids=["by the driver", "by the storage"])
def test_a_worker_that_dies_goes_on_from_its_checkpoint(
    foldgrid, tables_of, write_spec, tmp_path: Path, ray_address: str, storage: bool
) -> None:
    module = f"dying_late_{storage}"
    (tmp_path / f"{module}.py").write_text(DYING_LATE)
    model = {"name": f"{module}:build", "params": {"epoch": 8}}
    train = LONG | {"epochs": 10, "schedule": "cosine"}
    spec = write_spec(model=model, train=train, folds={"test": 1, "validate": [2]})
    sets = ["checkpoint.every=1", "execution.max_failures=1"]
    if storage:
        (tmp_path / "shared").mkdir()
        sets.append(f"execution.storage={tmp_path / 'shared'}")
    options = [word for text in sets for word in ("--set", text)]
    for name, where in (
        ("killed", ("--address", ray_address)),
        ("whole", ("--executor", "serial")),
    ):
        result = foldgrid("run", spec, "--out", tmp_path / name, "--quiet", *where, *options)
        assert result.code == 0, result.err
    assert tables_of(tmp_path / "killed") == tables_of(tmp_path / "whole")
    assert not list(tmp_path.rglob("*.pt"))
    log = (tmp_path / "killed" / "log.txt").read_text()
    assert "goes on from epoch" in log
    assert [t["attempts"] for t in rows(tmp_path / "killed", "timings")] == ["2"]


VANDAL = """
import shutil
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from torch import nn

class Vandal(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.layer = nn.Linear(channels, classes)

    def forward(self, x):
        trials = Path(__file__).with_name("run") / "trials"
        if trials.is_dir():
            shutil.rmtree(trials)
            trials.write_text("no folder any more")
        return self.layer(x.mean(dim=2))

def build(input_shape, classes):
    return Vandal(input_shape[0], classes)
"""


def test_a_run_directory_that_vanishes_ends_the_sweep_in_one_line(
    foldgrid, write_spec, tmp_path: Path, ray_address: str
) -> None:
    (tmp_path / "vandal.py").write_text(VANDAL)
    spec = write_spec(model={"name": "vandal:build"})
    out = tmp_path / "run"
    result = foldgrid("run", spec, "--out", out, "--quiet", "--address", ray_address)
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert "run/trials" in result.err


def test_a_cluster_that_is_not_there_is_said_in_one_line(
    foldgrid, write_spec, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    spec = write_spec()
    result = foldgrid("run", spec, "--out", out, "--quiet", "--address", "127.0.0.1:1")
    assert result.code == 2
    assert "--address 127.0.0.1:1" in result.err.splitlines()[-1]


def test_more_than_the_cluster_has_is_refused(
    foldgrid, write_spec, tmp_path: Path, ray_address: str
) -> None:
    options = ("--set", "resources.cpu=64", "--address", ray_address)
    result = foldgrid("run", write_spec(), "--out", tmp_path / "run", "--quiet", *options)
    assert result.code == 2
    assert "resources.cpu: found 64; allowed at most 2" in result.err


# The driver as a process of its own


def start(spec: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(spec), "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_records(process: subprocess.Popen[str], out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("trials/*/result.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no records"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_repeats_nothing(
    foldgrid, tables_of, write_spec, tmp_path: Path
) -> None:
    folds = {"test": 1, "validate": [2, 3, 4]}
    spec = write_spec(train=LONG, folds=folds)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert foldgrid("run", spec, "--out", whole, "--executor", "serial", "--quiet").code == 0
    process = start(spec, killed)
    wait_for_records(process, killed, 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = {p: p.stat().st_mtime_ns for p in killed.glob("trials/*/result.json")}
    assert 2 <= len(before) < 6
    again = start(spec, killed)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert tables_of(killed) == tables_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_saves_and_says_how_to_go_on(
    write_spec, tmp_path: Path, number: signal.Signals
) -> None:
    spec = write_spec(
        train=LONG | {"epochs": 150},
        checkpoint={"every": 10_000},
        folds={"test": 1, "validate": [2, 3, 4]},
    )
    out = tmp_path / "run"
    process = start(spec, out)
    wait_for_records(process, out, 1)
    # Between the first epoch and the last of the trial that has taken the first one's place.
    (record,) = list(out.glob("trials/*/result.json"))[:1]
    time.sleep(json.loads(record.read_text(encoding="utf-8"))["timing"]["wall_seconds"] / 3)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "to continue: foldgrid run" in printed
    assert "Traceback" not in errors
    statuses = {t["status"] for t in rows(out, "trials")}
    assert statuses == {"finished", "pending"}
    assert list(out.glob("trials/*/checkpoint.pt"))


LATE = """
import sys, time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    try:
        Path(__file__).with_name("first").touch(exist_ok=False)
    except FileExistsError:
        time.sleep(2)
"""


def test_a_worker_that_starts_slower_than_trials_end_gets_its_share(
    write_spec, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LATE)
    decays = {"grid": [round(0.0001 * i, 4) for i in range(30)]}
    train = {"epochs": 4, "batch_size": 4, "optimizer": {"name": "sgd", "weight_decay": decays}}
    spec = write_spec(model={"name": "cnn1d"}, train=train)
    out = tmp_path / "run"
    command = [*COMMAND, str(spec), "--out", str(out), "--quiet"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path})
    spans = sorted(
        (datetime.fromisoformat(row["started"]).timestamp(), float(row["wall_seconds"]))
        for row in rows(out, "timings")
    )
    assert len(spans) == 60
    together = [start + wall > after for (start, wall), (after, _) in pairwise(spans)]
    assert any(together)
