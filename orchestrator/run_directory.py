"""RunDirectory: reading what a sweep left on disk; writes nothing and needs no lock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchestrator import envelope
from orchestrator.envelope import DamagedFileError
from orchestrator.errors import DamagedPlanError
from orchestrator.records import TrialFailure, TrialPause, TrialRecord
from orchestrator.trials import Plan, Trial

# What every sweep writes over, or removes from.
_WRITTEN = ("spec.yaml", "environment.json", "tables", "plots", "report.html")

_Found = TypeVar("_Found", TrialRecord, TrialFailure, TrialPause)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunDirectory:
    """The plan, records and failures in a run directory, whole or of a sweep still running.

    Attributes:
        path: the folder; it need not exist.
    """

    path: Path

    @property
    def plan_file(self) -> Path:
        """The plan's file."""
        return self.path / "plan.json"

    @property
    def tables(self) -> Path:
        """The folder of the tables."""
        return self.path / "tables"

    @property
    def refit_file(self) -> Path:
        """What says how the best configuration was trained on all folds; written last."""
        return self.path / "refit" / "refit.json"

    def refit_weights_file(self, name: str) -> Path:
        """The weights of that training, by `weights_name` of the model."""
        return self.refit_file.with_name(name)

    def trial(self, trial: str) -> Path:
        """The folder of one trial, by its identity."""
        return self.path / "trials" / trial

    def result_file(self, trial: str) -> Path:
        """The file that a finished trial has."""
        return self.trial(trial) / "result.json"

    def failure_file(self, trial: str) -> Path:
        """The file that a trial has whose latest attempt failed."""
        return self.trial(trial) / "failure.json"

    def pause_file(self, trial: str) -> Path:
        """The file that a trial has which waits after some of its epochs, or was given up then."""
        return self.trial(trial) / "pause.json"

    def checkpoint_file(self, trial: str) -> Path:
        """The file that a trial has which was running when it was last saved."""
        return self.trial(trial) / "checkpoint.pt"

    def weights_file(self, trial: str, name: str) -> Path:
        """The weights of a finished trial, where they were kept, by `weights_name` of its model."""
        return self.trial(trial) / name

    def traceback_file(self, trial: str) -> Path:
        """The traceback of the latest failure."""
        return self.trial(trial) / "traceback.txt"

    def read_plan(self) -> Plan | None:
        """The plan, or None where there is none.

        Raises:
            DamagedPlanError: it is damaged.
            RunDirectoryError: it is of another format version, or not readable.
        """
        try:
            fields = envelope.read(self.plan_file)
            return None if fields is None else Plan.from_json(fields)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DamagedPlanError(
                f"{self.plan_file}: damaged: {_first_line(error)}"
                " (the foldgrid run command that made the run directory makes it again)"
            ) from error

    def has_results(self) -> bool:
        """Whether any trial has finished, whatever its record is worth."""
        return any(self.path.glob("trials/*/result.json"))

    def foreign(self) -> list[str]:
        """What is called like the files of a run in a folder that was never a run directory."""
        if self.plan_file.exists() or (self.path / "trials").exists():
            return []
        return [name for name in _WRITTEN if (self.path / name).exists()]

    def record(self, trial: Trial) -> TrialRecord | None:
        """The record of a finished trial; None where there is none that can be believed.

        A damaged one is named in a warning; its trial counts as not finished.

        Raises:
            RunDirectoryError: of another format version, or not readable.
        """
        return self._read(self.result_file(trial.id), trial, _record)

    def failure(self, trial: Trial) -> TrialFailure | None:
        """The latest failure of a trial, without regard to a record; None where there is none.

        Raises:
            RunDirectoryError: of another format version, or not readable.
        """

        def parse(fields: dict[str, Any]) -> TrialFailure:
            return TrialFailure.from_json(fields, self._traceback(trial))

        return self._read(self.failure_file(trial.id), trial, parse)

    def pause(self, trial: Trial) -> TrialPause | None:
        """Where a trial waits or has waited, without regard to a record; None if it never did.

        Raises:
            RunDirectoryError: of another format version, or not readable.
        """
        return self._read(self.pause_file(trial.id), trial, TrialPause.from_json)

    def records(self, plan: Plan) -> Iterator[TrialRecord]:
        """The records of the finished trials in plan order, one in memory at a time.

        Raises:
            RunDirectoryError: one is of another format version, or not readable.
        """
        for trial in plan.every:
            record = self.record(trial)
            if record is not None:
                yield record

    def _read(
        self, path: Path, trial: Trial, parse: Callable[[dict[str, Any]], _Found]
    ) -> _Found | None:
        """What a file says of a trial; None where there is none, or it is damaged."""
        try:
            fields = envelope.read(path)
            if fields is None:
                return None
            found = parse(fields)
            if found.trial != trial.id:
                raise DamagedFileError(f"it is of trial {found.trial}")
        except (KeyError, TypeError, ValueError) as error:
            _log.warning("%s: damaged, not used: %s", path, _first_line(error))
            return None
        return found

    def _traceback(self, trial: Trial) -> str:
        try:
            return self.traceback_file(trial.id).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def _record(fields: dict[str, Any]) -> TrialRecord:
    record = TrialRecord.from_json(fields)
    if all(row.epoch != record.epoch for row in record.epochs):
        raise DamagedFileError(f"it lacks epoch {record.epoch}")
    return record


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return (
        lines[0] if isinstance(error, DamagedFileError) else f"{type(error).__name__}: {lines[0]}"
    )
