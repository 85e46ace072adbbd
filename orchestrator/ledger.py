"""The ledger: the finished and failed trials of a run directory; only the driver writes it.

A trial is finished when its `result.json` can be believed, and for no other reason: the file is
written in one step after the trial's last epoch, so a kill at any moment loses running trials
only, and a resume needs no other state.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator import atomic, envelope
from orchestrator.errors import RunDirectoryError
from orchestrator.records import TrialFailure, TrialRecord
from orchestrator.run_directory import RunDirectory
from orchestrator.trials import Plan, Trial

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ledger:
    """What is done and what is left, on disk.

    Attributes:
        directory: the reading side.
    """

    directory: RunDirectory

    @classmethod
    def open(cls, run_dir: Path) -> Ledger:
        """The ledger of a new or an existing run directory; makes its folders.

        Raises:
            RunDirectoryError: it cannot be made or written to, or is of another format version.
        """
        ledger = cls(RunDirectory(run_dir))
        ledger._refuse_other_version()
        try:
            (run_dir / "trials").mkdir(parents=True, exist_ok=True)
            probe = run_dir / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise RunDirectoryError(
                f"{run_dir}: cannot be the run directory: {atomic.reason(error)}"
            ) from error
        return ledger

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return self.directory.path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other drivers out for as long as the block runs.

        The system lets go of the lock when its owner dies, however it dies.

        Raises:
            RunDirectoryError: another process holds the lock, or the file system has no locks.
        """
        lock = FileLock(self.run_dir / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunDirectoryError(f"{self.run_dir}: another run is using it") from None
        except (OSError, NotImplementedError) as error:
            raise RunDirectoryError(f"{self.run_dir}: cannot be locked: {error}") from error
        try:
            yield
        finally:
            lock.release()

    def write_plan(self, plan: Plan) -> None:
        """Write the plan, in place of an earlier one.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        envelope.write(self.directory.plan_file, plan.to_json())

    def read_plan(self) -> Plan | None:
        """The plan, or None in a new run directory.

        Raises:
            RunDirectoryError: it is damaged or of another format version.
        """
        return self.directory.read_plan()

    def record(self, record: TrialRecord) -> None:
        """Write a finished trial; an earlier failure of it is forgotten.

        Raises:
            RunDirectoryError: it cannot be written.
            ValueError: a number is NaN or infinite.
        """
        self._make_folder(record.trial)
        envelope.write(self.directory.result_file(record.trial), record.to_json())
        for path in (
            self.directory.failure_file(record.trial),
            self.directory.traceback_file(record.trial),
        ):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                # No harm: a record counts for more than a failure.
                _log.warning("%s: cannot remove: %s", path, atomic.reason(error))

    def fail(self, failure: TrialFailure) -> None:
        """Write the latest failure of a trial.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        self._make_folder(failure.trial)
        atomic.write_text(self.directory.traceback_file(failure.trial), failure.traceback)
        # Last, so that who finds it finds the traceback too.
        envelope.write(self.directory.failure_file(failure.trial), failure.to_json())

    def records(self, plan: Plan) -> Iterator[TrialRecord]:
        """The records of the plan's finished trials in plan order, one in memory at a time.

        Raises:
            RunDirectoryError: one is of another format version, or not readable.
        """
        return self.directory.records(plan)

    def finished(self, plan: Plan) -> dict[str, TrialRecord]:
        """The records of the plan's finished trials by identity, in plan order.

        Raises:
            RunDirectoryError: one is of another format version, or not readable.
        """
        return {record.trial: record for record in self.records(plan)}

    def failures(self, plan: Plan) -> dict[str, TrialFailure]:
        """The latest failures of the plan's unfinished trials by identity, in plan order.

        Raises:
            RunDirectoryError: one is of another format version, or not readable.
        """
        found = ((trial, self.directory.failure(trial)) for trial in plan.trials)
        return {
            trial.id: failure
            for trial, failure in found
            if failure is not None and self.directory.record(trial) is None
        }

    def pending(self, plan: Plan, keep_failed: bool = False) -> list[Trial]:
        """The trials that are left to run, in plan order.

        Args:
            plan: every trial.
            keep_failed: leave trials out that have failed.

        Raises:
            RunDirectoryError: a record is of another format version, or not readable.
        """
        left = [trial for trial in plan.trials if self.directory.record(trial) is None]
        if keep_failed:
            left = [trial for trial in left if self.directory.failure(trial) is None]
        return left

    def _refuse_other_version(self) -> None:
        try:
            envelope.read(self.directory.plan_file)
        except envelope.DamagedFileError:
            # `read_plan` says so to whoever needs the plan.
            return

    def _make_folder(self, trial: str) -> None:
        path = self.directory.trial(trial)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot write: {atomic.reason(error)}") from error
