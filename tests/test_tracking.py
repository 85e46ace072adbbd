"""Trackers, with the real libraries and local storage."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Run, load_spec, read_run, run, tracking
from orchestrator.yaml_source import dump

Spec = Callable[..., dict[str, Any]]

ALL = ["tensorboard", "mlflow", "wandb"]
ROOT = Path(__file__).parents[1]


@dataclass
class Logged:
    """What a tracker holds of one trial."""

    group: str
    status: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


Read = Callable[[Path], list[tuple[str, Logged]]]


def tensorboard_runs(run_dir: Path) -> list[tuple[str, Logged]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    hparams = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    found = []
    for folder in sorted((run_dir / "trackers" / "tensorboard").glob("*/*")):
        events = accumulator.EventAccumulator(str(folder))
        events.Reload()
        logged = Logged(folder.parent.name)
        for name in events.Tags()["scalars"]:
            points = [(point.step, point.value) for point in events.Scalars(name)]
            if name.startswith("final_"):
                logged.scores[name] = points[-1][1]
            else:
                logged.history[name] = points
        data = events.SummaryMetadata("_hparams_/session_start_info")
        start = hparams.HParamsPluginData.FromString(data.plugin_data.content).session_start_info
        kinds = {k: v.WhichOneof("kind") for k, v in start.hparams.items()}
        logged.parameters = {k: str(getattr(start.hparams[k], kind)) for k, kind in kinds.items()}
        logged.status = "FINISHED" if logged.scores else ""
        found.append((folder.name, logged))
    return found


def mlflow_client(run_dir: Path) -> Any:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{run_dir / 'trackers/mlflow/mlflow.db'}")


def mlflow_all(run_dir: Path) -> list[Any]:
    client = mlflow_client(run_dir)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments))


def mlflow_runs(run_dir: Path) -> list[tuple[str, Logged]]:
    client, runs = mlflow_client(run_dir), mlflow_all(run_dir)
    names = {one.info.run_id: one.info.run_name for one in runs}
    found = []
    for one in runs:
        if (parent := one.data.tags.get("mlflow.parentRunId")) is None:
            continue
        logged = Logged(names[parent], one.info.status, one.data.params)
        for name, value in one.data.metrics.items():
            if name.startswith("final_"):
                logged.scores[name] = value
            else:
                points = client.get_metric_history(one.info.run_id, name)
                logged.history[name] = sorted((point.step, point.value) for point in points)
        found.append((one.data.tags["trial"], logged))
    return found


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format behind a header of seven bytes."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield pb.Record.FromString(parts)
            parts = b""


def wandb_runs(run_dir: Path) -> list[tuple[str, Logged]]:
    found = []
    for path in sorted((run_dir / "trackers/wandb").glob("offline-run-*/run-*.wandb")):
        name, logged = "", Logged("")
        for record in wandb_records(path):
            if record.HasField("run"):
                name, logged.group = record.run.display_name, record.run.run_group
                assert record.run.job_type == "fold"
                config = {item.key: item.value_json for item in record.run.config.update}
                logged.parameters = {k: v.strip('"') for k, v in config.items()}
            elif record.HasField("history"):
                row = {i.nested_key[0]: i.value_json for i in record.history.item}
                for key in row.keys() - {"epoch", "_step", "_runtime", "_timestamp"}:
                    point = (int(row["epoch"]), float(row[key]))
                    logged.history.setdefault(key, []).append(point)
            elif record.HasField("summary"):
                items = {i.key: i.value_json for i in record.summary.update}
                finals = {k: float(v) for k, v in items.items() if k.startswith("final_")}
                logged.scores |= finals
            elif record.HasField("exit"):
                logged.status = "FAILED" if record.exit.exit_code else "FINISHED"
        found.append((name, logged))
    return found


READERS: dict[str, Read] = {
    "tensorboard": tensorboard_runs,
    "mlflow": mlflow_runs,
    "wandb": wandb_runs,
}


def check(run_dir: Path, tracker: str) -> None:
    """Every finished trial once, grouped by configuration, with all that the tables say."""
    found = READERS[tracker](run_dir)
    ended = read_run(run_dir)
    logged = dict(found)
    finished = ended.trials[ended.trials["status"] != "pruned"]
    assert sorted(name for name, _ in found) == sorted(finished["trial"])
    epochs = ended.epochs.groupby("trial")
    values = {c.id: c.parameters for c in ended.plan.configurations}
    for row in finished.to_dict("records"):
        one = logged[row["trial"]]
        assert one.group == row["configuration"]
        assert one.status == "FINISHED"
        table = epochs.get_group(row["trial"])
        for name in ("lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            points = [
                (int(e), pytest.approx(v, rel=1e-6)) for e, v in table[["epoch", name]].values
            ]
            assert one.history[name] == points, (row["trial"], name)
        for name in ("epoch", "val_f1", "val_loss", "test_accuracy"):
            assert one.scores[f"final_{name}"] == pytest.approx(row[name], rel=1e-6)
        assert one.parameters["model.init"] == values[row["configuration"]]["model.init"]


def command(*words: object, home: Path) -> subprocess.Popen[str]:
    places = {"HOME": str(home), "FOLDGRID_CACHE": str(home / "cache")}
    environment = {**os.environ, **places, "PYTHONPATH": str(ROOT)}
    for name in [n for n in environment if n.startswith(("WANDB_", "MLFLOW_", "XDG_"))]:
        del environment[name]
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment,
    )


@pytest.fixture(scope="module")
def killed(spec_of: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a sweep with every tracker, killed in its third trial and continued."""
    home = tmp_path_factory.mktemp("home")
    spec = spec_of(trackers=ALL, checkpoint={"every": 5})
    spec["train"]["epochs"] = 40
    path = home / "spec.yaml"
    path.write_text(dump(spec), encoding="utf-8")
    words = ("run", path, "--executor", "serial", "--quiet")
    first = command(*words, home=home)
    run_dir = home / "results" / "tiny"
    while not (list(run_dir.glob("trials/*/checkpoint.pt")) and _finished(run_dir) >= 2):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert _finished(run_dir) < 4
    out, err = command(*words, home=home).communicate(timeout=240)
    assert "4 of 4 trials finished" in out, err
    assert err == ""
    return run_dir


def _finished(run_dir: Path) -> int:
    return len(list(run_dir.glob("trials/*/result.json")))


class TestEveryTracker:
    @pytest.mark.parametrize("tracker", ALL)
    def test_killed_and_continued_every_trial_is_there_once(
        self, killed: Path, tracker: str
    ) -> None:
        check(killed, tracker)

    def test_nothing_is_written_beside_the_run_directory(self, killed: Path) -> None:
        home = killed.parents[1]
        assert {path.name for path in home.iterdir()} <= {"spec.yaml", "results", "cache"}
        assert {path.name for path in killed.parent.iterdir()} == {"tiny"}

    def test_another_call_changes_nothing(self, killed: Path) -> None:
        before = self._written(killed)
        ended = run(killed.parents[1] / "spec.yaml", killed, executor="serial", quiet=True)
        assert ended.finished == 4
        assert self._written(killed) == before

    @staticmethod
    def _written(run_dir: Path) -> dict[str, int]:
        """When each run was last written."""
        folder = run_dir / "trackers"
        files = (*folder.glob("tensorboard/*/*/*"), *folder.glob("wandb/*/*.wandb"))
        times = {path.name: path.stat().st_mtime_ns for path in files}
        return times | {one.info.run_id: one.info.end_time for one in mlflow_all(run_dir)}

    def test_the_tables_are_those_of_a_sweep_without(
        self, spec_of: Spec, tmp_path: Path, tables_of: Callable[[Path], dict[str, bytes]]
    ) -> None:
        # What was run before there were trackers is logged by the next call.
        plain = run(spec_of(), tmp_path / "run", executor="serial", quiet=True)
        before = tables_of(plain.path)
        again = run(spec_of(trackers=ALL), plain.path, executor="serial", quiet=True)
        assert tables_of(again.path) == before
        for tracker in ALL:
            check(again.path, tracker)


class TestMlflow:
    def test_a_configuration_is_the_parent_of_its_folds(self, killed: Path) -> None:
        runs = mlflow_all(killed)
        ended = read_run(killed)
        parents = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
        assert sorted(one.info.run_name for one in parents) == sorted(
            ended.configurations["configuration"]
        )
        means = ended.configurations.set_index("configuration")
        for parent in parents:
            told = means.loc[parent.info.run_name]
            assert parent.info.status == "FINISHED"
            for name in ("mean_val_accuracy", "std_val_accuracy", "mean_test_accuracy"):
                assert parent.data.metrics[name] == pytest.approx(told[name], abs=1e-12)
        children = [one for one in runs if one not in parents]
        assert Counter(one.data.tags["fold"] for one in children) == {"2": 2, "3": 2}
        assert {one.data.tags["seed"] for one in children} == {"0"}

    def test_failures_are_runs_too_and_mended_ones_replace_them(
        self, spec_of: Spec, tmp_path: Path
    ) -> None:
        spec = spec_of(model={"name": "cnn1d"}, trackers=["mlflow"], folds={"validate": [2]})
        spec["train"]["optimizer"]["lr"] = {"grid": [0.01, 1e30]}
        for _ in range(2):
            ended = run(spec, tmp_path / "run", executor="serial", quiet=True)
            assert ended.failed == 1
            runs = [r for r in mlflow_all(ended.path) if "trial" in r.data.tags]
            assert sorted(r.info.status for r in runs) == ["FAILED", "FINISHED"]
            (failed,) = (r for r in runs if r.info.status == "FAILED")
            assert failed.data.tags["error"] == ended.trials["error"].dropna().iloc[0]


def test_a_trial_that_waits_is_logged_when_it_has_finished(spec_of: Spec, tmp_path: Path) -> None:
    search = {"pruner": {"name": "halving", "epochs": 1, "folds": 2}}
    spec = spec_of(trackers=["tensorboard"], search=search)
    spec["train"]["epochs"] = 3
    ended = run(spec, tmp_path / "run", executor="serial", quiet=True)
    assert (ended.finished, ended.pruned) == (2, 2)
    check(ended.path, "tensorboard")


class TestWhatGoesWrong:
    def test_a_server_that_is_away_is_one_warning(
        self, spec_of: Spec, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
            ended = self._run(spec_of, tmp_path, uri)
        assert ended.exit_code == 0
        err = capfd.readouterr().err
        assert err.count("warning: tracker mlflow: ") == 1, err
        assert "the next call on this run directory logs what is missing" in err
        assert "Traceback" not in err
        check(ended.path, "tensorboard")

    def test_a_server_that_never_answers_is_not_waited_for(
        self, spec_of: Spec, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("mlflow")
        monkeypatch.setattr(tracking, "_PATIENCE", 1.0)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
            ended = self._run(spec_of, tmp_path, uri)
        assert ended.exit_code == 0
        assert "tracker mlflow: does not answer" in capfd.readouterr().err

    def test_a_database_is_never_there_in_part(self, spec_of: Spec, tmp_path: Path) -> None:
        pytest.importorskip("mlflow")
        path, ended = tmp_path / "run/trackers/mlflow/mlflow.db", threading.Event()

        def first_seen() -> set[str]:
            while not path.exists() and not ended.is_set():
                time.sleep(0.001)
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
                return {name for (name,) in database.execute("select name from sqlite_master")}

        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(first_seen)
            try:
                spec = spec_of(trackers=["mlflow"], folds={"test": 1, "validate": [2]})
                run(spec, tmp_path / "run", executor="serial", quiet=True)
            finally:
                ended.set()
        with closing(sqlite3.connect(path)) as database:
            made = {name for (name,) in database.execute("select name from sqlite_master")}
        assert seen.result() == made

    @staticmethod
    def _run(spec_of: Spec, tmp_path: Path, uri: str) -> Run:
        trackers = [{"name": "mlflow", "uri": uri}, "tensorboard"]
        spec = spec_of(trackers=trackers, folds={"test": 1, "validate": [2]})
        spec["train"]["epochs"] = 1
        return run(spec, tmp_path / "run", executor="serial", quiet=True)

    @pytest.mark.parametrize("tracker", ALL)
    def test_a_package_that_is_not_installed(
        self,
        foldgrid: Callable,
        write_spec: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        tracker: str,
    ) -> None:
        package = {"tensorboard": "tensorboardX"}.get(tracker, tracker)
        monkeypatch.setitem(sys.modules, package, None)
        spec = write_spec(trackers=[tracker])
        result = foldgrid("run", spec, "--executor", "serial", "--out", tmp_path / "run")
        assert result.code == 2
        line = _line_of(spec, "trackers")
        assert result.err == (
            f"{spec}:{line}: trackers.0: found {tracker}, whose package is not installed;"
            f' allowed it after pip install "foldgrid[{tracker}]"\n'
        )
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("trackers", "said"),
        [
            ("mlflow", "trackers: found 'mlflow'; allowed a list of tensorboard, mlflow, wandb"),
            (["mlflw"], "trackers.0.name: found 'mlflw'; allowed tensorboard, mlflow, wandb (did"),
            (["wandb", "wandb"], "trackers.1: found wandb again; allowed each tracker once"),
            ([{"name": "mlflow", "url": "x:y"}], "trackers.0.url: found unknown key 'url'"),
            ([{"name": "mlflow", "uri": "mlruns"}], "trackers.0.uri: found 'mlruns'"),
            ([{"name": "wandb", "mode": "off"}], "trackers.0.mode: found 'off'; allowed offline"),
            ([[]], "trackers.0"),
        ],
    )
    def test_wrong_specifications(
        self, foldgrid: Callable, write_spec: Callable[..., Path], trackers: object, said: str
    ) -> None:
        result = foldgrid("plan", write_spec(trackers=trackers))
        assert result.code == 2
        assert said in result.err


def test_both_spellings_are_one(spec_of: Spec) -> None:
    short = load_spec(spec_of(trackers=["mlflow"]))
    long = load_spec(spec_of(trackers=[{"name": "mlflow", "uri": None}]))
    assert short.document == long.document
    assert load_spec(dict(short.document)).settings == short.settings


def _line_of(path: Path, key: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.startswith(f"{key}:"))
