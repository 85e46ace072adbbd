"""TensorBoard: event files, a folder a configuration and in it one a trial."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from orchestrator.records import EpochRow
from orchestrator.tracker_spec import TensorBoardSpec
from orchestrator.tracking import Metrics, metrics, parameters
from orchestrator.trials import Plan, Trial

_DONE = ".logged"
"""A file beside the events of a trial that are complete."""


def connect(spec: TensorBoardSpec, plan: Plan, folder: Path, sweep: str) -> TensorBoardTracker:
    """The tracker of a run directory."""
    return TensorBoardTracker(folder)


class TensorBoardTracker:
    """Writes event files; see `tracking.Tracker`."""

    def __init__(self, folder: Path) -> None:
        """Write below this folder."""
        self._folder = folder
        self._writers: dict[str, SummaryWriter] = {}

    def logged(self) -> frozenset[str]:
        """The trials whose events are complete."""
        return frozenset(path.parent.name for path in self._folder.glob(f"*/*/{_DONE}"))

    def start(self, trial: Trial) -> None:
        """Begin an empty folder."""
        self._end(trial)
        shutil.rmtree(self._place(trial), ignore_errors=True)
        self._writers[trial.id] = SummaryWriter(logdir=str(self._place(trial)))

    def rows(self, trial: Trial, rows: Sequence[EpochRow]) -> None:
        """Scalars by epoch."""
        writer = self._writers[trial.id]
        for row in rows:
            for name, value in metrics(row).items():
                writer.add_scalar(name, value, row.epoch)
        writer.flush()

    def finish(self, trial: Trial, scores: Metrics) -> None:
        """The scores, beside the parameters in the tab of those."""
        writer = self._writers[trial.id]
        for summary in hparams(parameters(trial) | {"fold": trial.fold}, scores):
            writer.file_writer.add_summary(summary)
        for name, value in scores.items():
            writer.add_scalar(name, value, int(scores["final_epoch"]))
        self._end(trial)
        (self._place(trial) / _DONE).touch()

    def fail(self, trial: Trial, error: str) -> None:
        """The error, in the tab of texts."""
        self._writers[trial.id].add_text("error", error)
        self._end(trial)

    def close(self) -> None:
        """Close what is open."""
        for writer in self._writers.values():
            writer.close()

    def _end(self, trial: Trial) -> None:
        if trial.id in self._writers:
            self._writers.pop(trial.id).close()

    def _place(self, trial: Trial) -> Path:
        return self._folder / trial.configuration.id / trial.id
