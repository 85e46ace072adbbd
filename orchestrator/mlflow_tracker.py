"""MLflow: a run a configuration, its trials the child runs."""

from __future__ import annotations

import logging
import os
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator import atomic
from orchestrator.csv_files import text
from orchestrator.records import EpochRow
from orchestrator.tracker_spec import MlflowSpec
from orchestrator.tracking import Metrics, metrics, parameters, place
from orchestrator.trials import Configuration, Plan, Trial

_SWEEP = "foldgrid.sweep"
_TRIAL = "foldgrid.trial"
_CONFIGURATION = "foldgrid.configuration"

_MOST = 1000
"""Metrics of one request."""

_MOST_PARAMETERS = 100
"""Likewise."""

_LONGEST = 500
"""Characters of a parameter's value, for old servers too."""


def connect(spec: MlflowSpec, plan: Plan, folder: Path, sweep: str) -> MlflowTracker:
    """The tracker of a run directory, its experiment made where there is none."""
    # Before the import: it tells its makers of each use.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    for name in ("alembic", "mlflow.store.db"):
        # Forty lines on how a database is made.
        logging.getLogger(name).setLevel(logging.WARNING)
    elsewhere = spec.uri or os.environ.get("MLFLOW_TRACKING_URI")
    client = MlflowClient(tracking_uri=elsewhere or _database(folder))
    name = spec.experiment or plan.name
    found = client.get_experiment_by_name(name)
    if found is not None:
        experiment = found.experiment_id
    else:
        artifacts = None if elsewhere else (folder / "artifacts").as_uri()
        experiment = client.create_experiment(name, artifact_location=artifacts)
    return MlflowTracker(client, experiment, plan, sweep)


def _database(folder: Path) -> str:
    """The address of the run directory's own database, which is there as a whole or not at all.

    MLflow makes one in many steps over a second or two, and cannot go on from half of them.
    """
    from mlflow.tracking import MlflowClient

    path = folder / "mlflow.db"
    if not path.exists():
        with TemporaryDirectory() as name:
            made = Path(name) / path.name
            MlflowClient(tracking_uri=f"sqlite:///{made}").search_experiments(max_results=1)
            atomic.write_bytes(path, made.read_bytes())
    return f"sqlite:///{path}"


class MlflowTracker:
    """Makes runs on a tracking server or in a database; see `tracking.Tracker`."""

    def __init__(self, client: Any, experiment: str, plan: Plan, sweep: str) -> None:
        """Find what is there of this sweep already."""
        self._client, self._experiment, self._sweep = client, experiment, sweep
        # As many for each configuration, those that a search is yet to suggest included.
        self._folds = len({(trial.test_fold, trial.fold, trial.seed) for trial in plan.trials})
        self._parents: dict[str, str] = {}
        self._children: dict[str, str] = {}
        self._open: set[str] = set()
        # Of the finished trials of each configuration.
        self._scores: dict[str, dict[str, Metrics]] = {}
        # Which configurations have been told of anything, since they end with their trials.
        self._touched: dict[str, str] = {}
        for run in self._runs():
            self._remember(run)

    def logged(self) -> frozenset[str]:
        """The trials whose runs are finished."""
        return frozenset(trial for scores in self._scores.values() for trial in scores)

    def start(self, trial: Trial) -> None:
        """A child run; one that an earlier attempt has left is deleted."""
        configuration = trial.configuration
        if (old := self._children.pop(trial.id, None)) is not None:
            self._client.delete_run(old)
            self._scores.get(configuration.id, {}).pop(trial.id, None)
        tags = {key: str(value) for key, value in place(trial).items()}
        tags |= {_TRIAL: trial.id, "mlflow.parentRunId": self._parent(configuration)}
        self._children[trial.id] = self._new(trial.id, tags, parameters(trial))
        self._open.add(trial.id)

    def rows(self, trial: Trial, rows: Sequence[EpochRow]) -> None:
        """Metrics by epoch."""
        self._log(self._children[trial.id], [(row.epoch, metrics(row)) for row in rows])

    def finish(self, trial: Trial, scores: Metrics) -> None:
        """The scores, and their mean over the folds so far in the configuration's run."""
        run = self._children[trial.id]
        self._log(run, [(int(scores["final_epoch"]), scores)])
        self._client.set_terminated(run, "FINISHED")
        self._open.discard(trial.id)
        done = self._scores.setdefault(trial.configuration.id, {})
        done[trial.id] = scores
        parent = self._parent(trial.configuration)
        self._log(parent, [(len(done), _over_folds(list(done.values())))])

    def fail(self, trial: Trial, error: str) -> None:
        """The error, as a tag."""
        run = self._children[trial.id]
        self._client.set_tag(run, "error", error)
        self._client.set_terminated(run, "FAILED")
        self._open.discard(trial.id)
        self._touched[trial.configuration.id] = "FAILED"

    def close(self) -> None:
        """Runs that have not ended were killed, configurations without all their trials too."""
        for trial in self._open:
            self._client.set_terminated(self._children[trial], "KILLED")
        for configuration, status in self._touched.items():
            complete = len(self._scores.get(configuration, {})) >= self._folds
            status = "FINISHED" if complete else status
            self._client.set_terminated(self._parents[configuration], status)

    def _runs(self) -> Iterator[Any]:
        token: str | None = None
        while True:
            filtered = f"tags.`{_SWEEP}` = '{self._sweep}'"
            page = self._client.search_runs([self._experiment], filtered, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _remember(self, run: Any) -> None:
        tags, configuration = run.data.tags, run.data.tags["configuration"]
        if _TRIAL not in tags:
            self._parents[configuration] = run.info.run_id
            return
        self._children[tags[_TRIAL]] = run.info.run_id
        if run.info.status == "FINISHED":
            scores = {k: v for k, v in run.data.metrics.items() if k.startswith("final_")}
            self._scores.setdefault(configuration, {})[tags[_TRIAL]] = scores

    def _parent(self, configuration: Configuration) -> str:
        """The configuration's run, made or opened again where need be."""
        name = configuration.id
        if name not in self._parents:
            tags = {_CONFIGURATION: name, "configuration": name}
            self._parents[name] = self._new(name, tags, configuration.parameters)
        elif name not in self._touched:
            self._client.update_run(self._parents[name], status="RUNNING")
        self._touched.setdefault(name, "KILLED")
        return self._parents[name]

    def _new(self, name: str, tags: dict[str, str], values: dict[str, Any]) -> str:
        from mlflow.entities import Param

        tags = tags | {_SWEEP: self._sweep}
        run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        run_id: str = run.info.run_id
        params = [Param(_key(k), text(v)[:_LONGEST]) for k, v in values.items()]
        for i in range(0, len(params), _MOST_PARAMETERS):
            self._client.log_batch(run_id, params=params[i : i + _MOST_PARAMETERS])
        return run_id

    def _log(self, run: str, steps: Sequence[tuple[int, Metrics]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = [Metric(k, v, now, step) for step, values in steps for k, v in values.items()]
        for i in range(0, len(found), _MOST):
            self._client.log_batch(run, metrics=found[i : i + _MOST])


def _over_folds(scores: Sequence[Metrics]) -> Metrics:
    """Mean and standard deviation (ddof 0) of each score that every trial has."""
    names = [n for n in scores[0] if n != "final_epoch" and all(n in one for one in scores)]
    found: Metrics = {}
    for name in names:
        values = [one[name] for one in scores]
        metric = name.removeprefix("final_")
        found[f"mean_{metric}"] = statistics.fmean(values)
        found[f"std_{metric}"] = statistics.pstdev(values)
    return found


def _key(path: str) -> str:
    """A parameter's path with what MLflow takes in a name."""
    return re.sub(r"[^\w\-./: ]", "-", path)
