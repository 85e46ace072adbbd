"""The ledger: the finished and failed trials of a run directory; only the driver writes it.

A trial is finished when its `result.json` can be believed, and for no other reason: the file is
written in one step after the trial's last epoch, so a kill at any moment loses running trials
only, and a resume needs no other state.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator import atomic, envelope
from orchestrator.checkpoint import (
    Checkpoint,
    read_checkpoint,
    saved_epochs,
    storage_file,
    write_checkpoint,
)
from orchestrator.envelope import DamagedFileError
from orchestrator.errors import RunDirectoryError
from orchestrator.records import Cause, TrialFailure, TrialPause, TrialRecord, Weights
from orchestrator.run_directory import RunDirectory
from orchestrator.trials import Plan, Trial
from orchestrator.weights_names import WEIGHTS_NAMES

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ledger:
    """What is done and what is left, on disk.

    Attributes:
        directory: the reading side.
        storage: folder for checkpoints; None for the trials' own folders.
    """

    directory: RunDirectory
    storage: Path | None = None

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
            atomic.probe(run_dir)
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
            self._tidy()
            yield
        finally:
            lock.release()

    def stored_in(self, shared: Path) -> Ledger:
        """The ledger with its checkpoints in a folder of its own below a shared one.

        The folder's name is drawn at random and kept in the run directory, so that no other run
        finds these checkpoints, nor a new run in the place of one that was removed.

        Raises:
            RunDirectoryError: one of them cannot be written.
        """
        key = self.run_dir / ".storage"
        try:
            if not key.is_file():
                atomic.write_text(key, secrets.token_hex(8))
            storage = shared / f"{self.run_dir.name}-{key.read_text(encoding='utf-8')}"
            storage.mkdir(exist_ok=True)
        except OSError as error:
            place = error.filename or shared
            raise RunDirectoryError(f"{place}: cannot write: {atomic.reason(error)}") from error
        atomic.remove_abandoned(storage)
        return replace(self, storage=storage)

    def close_storage(self) -> None:
        """Remove the folder of the checkpoints if it is of no use any more."""
        if self.storage is not None:
            with suppress(OSError):
                self.storage.rmdir()

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
        path = self.directory.result_file(record.trial)
        envelope.write(path, record.to_json(), canonical=True)
        self.drop_checkpoint(record.trial)
        # No harm where they stay: a record counts for more than a failure or a pause.
        _remove(self.directory.pause_file(record.trial))
        _remove(self.directory.failure_file(record.trial))
        _remove(self.directory.traceback_file(record.trial))

    def fail(self, failure: TrialFailure) -> None:
        """Write the latest failure of a trial.

        A trial that went wrong by itself begins anew the next time, since what was changed to
        mend it may matter from the first epoch on; others go on from their checkpoint.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        self._make_folder(failure.trial)
        atomic.write_text(self.directory.traceback_file(failure.trial), failure.traceback)
        # Last, so that who finds it finds the traceback too.
        envelope.write(self.directory.failure_file(failure.trial), failure.to_json())
        if failure.cause is Cause.OWN:
            self.drop_checkpoint(failure.trial)

    def pause(self, pause: TrialPause) -> None:
        """Write how far a trial has come that waits; how it goes on, its checkpoint says.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        self._make_folder(pause.trial)
        envelope.write(self.directory.pause_file(pause.trial), pause.to_json(), canonical=True)

    def save_weights(self, weights: Weights) -> None:
        """Keep the weights of a trial that is about to be recorded.

        Not durably: after a power failure their checksum tells.

        Raises:
            RunDirectoryError: they cannot be written.
        """
        self._make_folder(weights.trial)
        path = self.directory.weights_file(weights.trial, weights.name)
        atomic.write_bytes(path, weights.content, durable=False)

    def drop_weights(self, trial: str) -> None:
        """Remove the weights of a trial, if they were kept."""
        for name in WEIGHTS_NAMES:
            _remove(self.directory.weights_file(trial, name))

    def checkpoint_file(self, trial: str) -> Path:
        """Where the checkpoint of a trial is kept."""
        if self.storage is not None:
            return storage_file(self.storage, trial)
        return self.directory.checkpoint_file(trial)

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint in place of an earlier one of its trial.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        path = self.checkpoint_file(checkpoint.trial)
        _make(path.parent)
        write_checkpoint(path, checkpoint)

    def checkpoint(self, trial: str) -> Checkpoint | None:
        """The last checkpoint of a trial; None where there is none that can be believed.

        A damaged one is named in a warning; its trial begins anew.
        """
        path = self.checkpoint_file(trial)
        try:
            return read_checkpoint(path, trial)
        except DamagedFileError as error:
            _log.warning("%s: damaged, not used: %s", path, error)
            return None

    def saved_epochs(self, trials: Sequence[Trial]) -> dict[str, int]:
        """The epochs that checkpoints will spare unfinished trials, by identity; none without."""
        found = ((trial.id, saved_epochs(self.checkpoint_file(trial.id))) for trial in trials)
        return {trial: epochs for trial, epochs in found if epochs}

    def drop_checkpoint(self, trial: str) -> None:
        """Remove the checkpoint of a trial, if it has one."""
        _remove(self.checkpoint_file(trial))

    def drop_old_checkpoints(self, plan: Plan) -> None:
        """Remove those of trials given up, and of finished ones, which a kill can leave."""
        for trial in plan.every:
            path = self.checkpoint_file(trial.id)
            if not path.exists():
                continue
            if trial.id in plan.pruned or self.directory.record(trial) is not None:
                _remove(path)

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
        found = ((trial, self.directory.failure(trial)) for trial in plan.every)
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
        left = [trial for trial in plan.every if self.directory.record(trial) is None]
        if keep_failed:
            left = [trial for trial in left if self.directory.failure(trial) is None]
        return left

    def _tidy(self) -> None:
        """Remove what killed processes have left half-written."""
        for folder in (self.run_dir, *(self.run_dir / "trials").glob("*")):
            atomic.remove_abandoned(folder)

    def _refuse_other_version(self) -> None:
        try:
            envelope.read(self.directory.plan_file)
        except envelope.DamagedFileError:
            # `read_plan` says so to whoever needs the plan.
            return

    def _make_folder(self, trial: str) -> None:
        _make(self.directory.trial(trial))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{folder}: cannot write: {atomic.reason(error)}") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s: cannot remove: %s", path, atomic.reason(error))
