"""The Python interface, as a notebook uses it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import orchestrator
from orchestrator import FoldgridError, Run, load_spec, plan, read_run, run

Spec = Callable[..., dict[str, Any]]

CHANGES = {
    "model": {"grid": [{"name": "cnn1d"}, {"name": "cnn2d", "channels": 2}]},
    "train": {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"lr": {"grid": [0.01, 0.1 + 0.2]}, "weight_decay": 0},
    },
}


@pytest.fixture(scope="session")
def done(spec_of: Spec, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished sweep of four configurations on two folds."""
    return run(spec_of(**CHANGES), tmp_path_factory.mktemp("api") / "run", executor="serial")


def test_importing_it_costs_nothing_and_gives_functions() -> None:
    code = (
        "import sys, orchestrator; before = set(sys.modules);"
        "import orchestrator.cli, orchestrator.experiment;"
        "from orchestrator import load_spec, plan, run, read_run;"
        "assert callable(plan) and callable(run), plan;"
        "assert 'orchestrator.api' not in before and 'logging' not in before;"
        "assert not {'pandas', 'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    assert set(orchestrator.__all__) <= set(dir(orchestrator))
    with pytest.raises(AttributeError, match="no attribute 'plna'"):
        orchestrator.plna  # noqa: B018


class TestLoadSpec:
    def test_a_mapping_is_what_its_file_is(
        self, write_spec: Callable[..., Path], spec_of: Spec
    ) -> None:
        from_file = load_spec(write_spec(**CHANGES))
        from_mapping = load_spec(spec_of(**CHANGES))
        assert from_mapping.document == from_file.document
        assert from_mapping.configurations == from_file.configurations

    def test_arrays_tuples_and_paths_may_stand_in_it(self, spec_of: Spec, clips: Path) -> None:
        spec = spec_of()
        spec["data"]["manifest"] = clips / "manifest.csv"
        spec["folds"] = {"test": np.int64(1), "validate": (2, 3)}
        spec["model"] = {"name": "cnn_transformer", "heads": {"grid": np.array([1, 2])}}
        before = repr(spec)
        loaded = load_spec(spec, ["train.optimizer.lr=0.5"])
        assert [c.model.heads for c in loaded.configurations] == [1, 2]  # type: ignore[union-attr]
        assert loaded.settings.folds.validate_folds == [2, 3]
        assert loaded.configurations[0].train.optimizer.lr == 0.5
        assert repr(spec) == before

    def test_its_faults_name_the_path_and_no_file(self, spec_of: Spec) -> None:
        spec = spec_of(model={"name": "cnn1d", "inti": "random"})
        with pytest.raises(FoldgridError) as raised:
            load_spec(spec, ["train.epochs=many"])
        assert raised.value.faults == (
            "specification: model.inti: found unknown key 'inti'; allowed name, init, weights"
            " (did you mean init?)",
            "--set train.epochs=many: train.epochs: found 'many'; allowed a whole number from 1"
            " to 1000000",
        )

    @pytest.mark.parametrize(
        ("train", "found"),
        [
            ({"epochs": {1, 2}}, "train.epochs: found a set; allowed text, numbers"),
            ({3: 1}, "train: found key 3; allowed names as keys"),
            ({"epochs": 2**2000}, "train.epochs: found a larger one; allowed a whole number below"),
        ],
    )
    def test_what_yaml_has_not_is_refused(self, spec_of: Spec, train: object, found: str) -> None:
        with pytest.raises(FoldgridError) as raised:
            load_spec(spec_of(train=train))
        assert found in str(raised.value)

    def test_a_mapping_within_itself_is_refused(self, spec_of: Spec) -> None:
        spec = spec_of()
        spec["train"]["augment"] = spec["train"]
        with pytest.raises(FoldgridError, match="too deep nesting"):
            load_spec(spec)

    def test_a_users_model_is_imported_from_the_folder(self, spec_of: Spec, tmp_path: Path) -> None:
        code = (
            "from torch import nn\n"
            "def build(input_shape, classes):\n"
            "    width = input_shape[0] * input_shape[1]\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(width, classes))\n"
        )
        (tmp_path / "api_models.py").write_text(code, encoding="utf-8")
        spec = spec_of(model={"name": "api_models:build"})
        with pytest.raises(FoldgridError, match="api_models"):
            load_spec(spec)
        assert load_spec(spec, folder=tmp_path).configurations[0].source


class TestPlan:
    def test_it_is_what_the_command_says(
        self, foldgrid: Callable, write_spec: Callable[..., Path]
    ) -> None:
        path = write_spec(**CHANGES)
        said = json.loads(foldgrid("plan", path, "--json").out)
        trials = plan(path).trials
        assert trials["trial"].tolist() == [trial["trial"] for trial in said["trials"]]
        assert trials.columns.tolist() == [
            *("trial", "configuration", "test_fold", "fold", "seed"),
            *said["varying"],
        ]

    def test_its_values_are_the_plans_own(self, spec_of: Spec) -> None:
        trials = plan(spec_of(**CHANGES)).trials
        assert trials["model.channels"].dtype == "Int64"
        assert trials["model.channels"].isna().sum() == 4
        assert set(trials["train.optimizer.lr"]) == {0.01, 0.1 + 0.2}
        assert trials["configuration"].cat.categories.tolist() == list(
            dict.fromkeys(trials["configuration"])
        )

    def test_overrides_are_for_what_is_not_checked_yet(self, spec_of: Spec) -> None:
        with pytest.raises(FoldgridError, match="overrides"):
            plan(load_spec(spec_of()), ["train.epochs=1"])


class TestRun:
    def test_its_frames_are_its_tables(self, done: Run) -> None:
        assert (done.finished, done.failed, done.exit_code, done.interrupted) == (8, 0, 0, False)
        for name in ("trials", "epochs", "configurations", "predictions", "timings"):
            text = pd.read_csv(
                done.path / "tables" / f"{name}.csv", dtype=str, keep_default_na=False
            )
            frame = getattr(done, name)
            assert frame.columns.tolist() == text.columns.tolist()
            assert len(frame) == len(text)
        raw = pd.read_csv(done.path / "tables" / "trials.csv", dtype=str, keep_default_na=False)
        assert [repr(x) for x in done.trials["val_loss"]] == raw["val_loss"].tolist()

    def test_dtypes(self, done: Run) -> None:
        types = done.trials.dtypes.astype(str)
        for name in ("test_fold", "fold", "seed", "epoch", "parameters", "model.channels"):
            assert types[name] == "Int64", name
        assert types["status"] == types["configuration"] == "category"
        assert types["val_accuracy"] == types["train.optimizer.lr"] == "float64"
        assert str(done.timings["started"].dtype).endswith("UTC]")
        assert done.configurations["rank_val_accuracy"].dtype == "Int64"
        assert (done.configurations["param_train.optimizer.lr"] == 0.1 + 0.2).sum() == 2

    def test_the_frames_fit_together(self, done: Run) -> None:
        scores = done.trials.groupby("configuration", observed=True)["val_accuracy"].mean()
        told = done.configurations.set_index("configuration")["mean_val_accuracy"]
        assert np.allclose(scores.loc[told.index], told, atol=1e-12)
        right = done.predictions.query("split == 'val'").eval("label == predicted")
        by_trial = right.groupby(done.predictions["trial"]).mean()
        assert np.allclose(by_trial[done.trials["trial"]], done.trials["val_accuracy"])
        assert set(done.run_summaries) == {
            path.stem.removeprefix("run_summary_")
            for path in (done.path / "tables").glob("run_summary_*.csv")
        }
        assert all("Validation Loss" in frame.index for frame in done.run_summaries.values())

    def test_read_again_it_is_the_same(self, done: Run) -> None:
        again = read_run(str(done.path))
        assert again == done
        assert again.best is not None
        assert (
            again.best.configuration.id
            == done.configurations.sort_values("rank_val_accuracy", kind="stable")[
                "configuration"
            ].iloc[0]
        )
        pd.testing.assert_frame_equal(again.trials, done.trials)

    def test_it_goes_on_in_a_thread_and_within_an_event_loop(
        self, spec_of: Spec, tmp_path: Path
    ) -> None:
        spec = spec_of(train={"epochs": 1})
        ended: list[Run] = []

        def in_a_thread() -> None:
            part = ["folds.validate=[2]"]
            ended.append(run(spec, tmp_path / "run", executor="serial", overrides=part))

        # Where no signal handler can be set.
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        assert ended[0].finished == 2

        async def cell() -> Run:
            return run(spec, tmp_path / "run", executor="serial", extend=True, quiet=True)

        second = asyncio.run(cell())
        assert (second.finished, len(second.trials)) == (4, 4)
        environment = json.loads((second.path / "environment.json").read_bytes())
        assert environment["runs"][0]["specification"] == str(Path.cwd() / "specification")

    def test_a_failed_trial_raises_nothing(self, spec_of: Spec, tmp_path: Path) -> None:
        spec = spec_of(model={"name": "cnn1d"})
        spec["train"]["optimizer"]["lr"] = {"grid": [1e-2, 1e30]}
        ended = run(spec, tmp_path / "run", executor="serial")
        assert (ended.finished, ended.failed, ended.exit_code) == (2, 2, 1)
        failed = ended.trials[ended.trials["status"] == "failed"]
        assert failed["train.optimizer.lr"].tolist() == [1e30, 1e30]
        assert failed["epoch"].isna().all()
        assert failed["error"].str.len().gt(0).all()
        again = read_run(ended.path)
        assert again == ended

    def test_faults_are_exceptions(self, spec_of: Spec, tmp_path: Path) -> None:
        spec = spec_of()
        for wrong, said in (
            ({"executor": "dask"}, "executor: found 'dask'; allowed ray, serial"),
            ({"executor": "serial", "address": "auto"}, "address"),
            ({"jobs": 0}, "jobs: found 0"),
        ):
            with pytest.raises(FoldgridError, match=said):
                run(spec, tmp_path / "run", **wrong)  # type: ignore[arg-type]
        assert not (tmp_path / "run").exists()

    def test_a_stop_saves_and_returns(self, spec_of: Spec, tmp_path: Path) -> None:
        before = signal.getsignal(signal.SIGINT)
        spec = spec_of(train={"epochs": 100_000}, model={"name": "cnn1d"})
        stopper = threading.Thread(target=_stop_once_begun, args=(tmp_path / "run",))
        stopper.start()
        ended = run(spec, tmp_path / "run", executor="serial", quiet=True)
        stopper.join()
        assert (ended.interrupted, ended.exit_code, ended.finished) == (True, 130, 0)
        assert list(ended.path.glob("trials/*/checkpoint.pt"))
        assert signal.getsignal(signal.SIGINT) is before


def _stop_once_begun(run_dir: Path) -> None:
    log = run_dir / "log.txt"
    while not (log.is_file() and "begins" in log.read_text(encoding="utf-8")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_stop_raises_where_the_program_is_not_ours() -> None:
    code = """
import os, signal, time
from orchestrator.interrupts import interruptible
try:
    with interruptible() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
except KeyboardInterrupt:
    print("raised")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "raised\n"), done.stderr


class TestReadRun:
    def test_what_is_no_run_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(FoldgridError, match=r"no plan\.json"):
            read_run(tmp_path)

    def test_without_tables_it_says_what_makes_them(self, done: Run, tmp_path: Path) -> None:
        (tmp_path / "plan.json").write_bytes((done.path / "plan.json").read_bytes())
        with pytest.raises(FoldgridError, match=f"foldgrid report {tmp_path}"):
            read_run(tmp_path)
        with pytest.raises(FoldgridError, match=r"nothing\.csv: no such table"):
            done.table("nothing")

    def test_a_class_may_be_called_na(self, spec_of: Spec, clips: Path, tmp_path: Path) -> None:
        names = {"low": "NA", "noise": "1", "ticks": "null"}
        rows = (clips / "manifest.csv").read_text(encoding="utf-8").splitlines()
        table = tmp_path / "clips.csv"
        cells = [row.split(",") for row in rows[1:]]
        lines = [f"{path},{names[label]},{fold},{source}" for path, label, fold, source in cells]
        table.write_text("\n".join([rows[0], *lines]) + "\n", encoding="utf-8")
        spec = spec_of(train={"epochs": 1}, model={"name": "cnn1d"}, folds={"validate": [2]})
        spec["data"] = {"dataset": "manifest", "manifest": table, "root": clips}
        ended = run(spec, tmp_path / "run", executor="serial", quiet=True)
        assert set(ended.predictions["label"]) == set(names.values())
        assert {"prob_NA", "prob_1", "prob_null"} <= set(ended.predictions.columns)
        assert ended.trials["test_fold"].isna().all()
        assert read_run(ended.path) == ended
