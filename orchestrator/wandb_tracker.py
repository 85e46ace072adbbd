"""Weights & Biases: a group a configuration, a run a trial, offline unless asked otherwise."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.records import EpochRow
from orchestrator.tracker_spec import WandbSpec
from orchestrator.tracking import Metrics, metrics, parameters, place
from orchestrator.trials import Plan, Trial


def connect(spec: WandbSpec, plan: Plan, folder: Path, sweep: str) -> WandbTracker:
    """The tracker of a run directory.

    Raises:
        RuntimeError: it is to go online and nobody is logged in.
    """
    mode = spec.mode or os.environ.get("WANDB_MODE") or "offline"
    # Else its service keeps a log in the user's cache and tells its makers of errors.
    with _unless_set(WANDB_CACHE_DIR=str(folder / ".cache"), WANDB_ERROR_REPORTING="false"):
        import wandb

        wandb.setup()
    if mode == "online" and not wandb.login(prompt=False):
        raise RuntimeError("nobody is logged in (wandb login, or WANDB_API_KEY)")
    return WandbTracker(spec, mode, plan.name, folder, sweep)


class WandbTracker:
    """Makes runs with the wandb package; see `tracking.Tracker`."""

    def __init__(self, spec: WandbSpec, mode: str, project: str, folder: Path, sweep: str) -> None:
        """Keep runs, or what is on its way to the server, in this folder."""
        self._spec, self._mode, self._folder, self._sweep = spec, mode, folder, sweep
        self._project = spec.project or project
        destination = f"{mode}|{spec.entity}|{self._project}"
        # A file a trial that is complete, since a folder of an offline run does not say so.
        self._done = folder / f".logged-{_digest(destination)}"
        self._runs: dict[str, Any] = {}

    def logged(self) -> frozenset[str]:
        """The trials that were handed over to W&B from beginning to end."""
        return frozenset(path.name for path in self._done.glob("*"))

    def start(self, trial: Trial) -> None:
        """A run in the group of the configuration; what was left of it offline goes."""
        import wandb

        self._end(trial, exit_code=1)
        # The same in each call: online, wandb goes on with the run where an earlier one stopped.
        run_id = _digest(f"{self._sweep}|{trial.id}")
        for left in self._folder.glob(f"offline-run-*-{run_id}"):
            shutil.rmtree(left, ignore_errors=True)
        run = wandb.init(
            # Where it makes a folder `wandb`: ours.
            dir=self._folder.parent,
            mode=self._mode,  # type: ignore[arg-type]
            project=self._project,
            entity=self._spec.entity,
            id=run_id,
            name=trial.id,
            group=trial.configuration.id,
            job_type="fold",
            config=parameters(trial) | place(trial),
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            settings=_SETTINGS,
        )
        run.define_metric("*", step_metric="epoch")
        self._runs[trial.id] = run

    def rows(self, trial: Trial, rows: Sequence[EpochRow]) -> None:
        """History by epoch; what a run that was gone on with has already is left out."""
        run = self._runs[trial.id]
        there = run.summary.get("epoch", -1) if run.resumed else -1
        for row in rows:
            if row.epoch > there:
                run.log({"epoch": row.epoch} | metrics(row))

    def finish(self, trial: Trial, scores: Metrics) -> None:
        """The scores, in the summary."""
        self._runs[trial.id].summary.update(scores)
        self._end(trial, exit_code=0)
        self._done.mkdir(exist_ok=True)
        (self._done / trial.id).touch()

    def fail(self, trial: Trial, error: str) -> None:
        """The error, in the summary."""
        self._runs[trial.id].summary["error"] = error
        self._end(trial, exit_code=1)

    def close(self) -> None:
        """What is still open has failed, for W&B."""
        for run in self._runs.values():
            run.finish(exit_code=1)

    def _end(self, trial: Trial, exit_code: int) -> None:
        if trial.id in self._runs:
            self._runs.pop(trial.id).finish(exit_code=exit_code)


@contextmanager
def _unless_set(**variables: str) -> Iterator[None]:
    """Environment variables for a block, as far as the user has not set them."""
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


_SETTINGS = {
    # foldgrid has a log, a record of the environment and measures of its own.
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
}


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()[:16]
