"""Worker: runs one trial after another in a process of its own, in steps that say what came of it.

Without Ray: whoever keeps the process gives it trials, asks for steps and carries them away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.checkpoint import Checkpoint, storage_file, write_checkpoint
from orchestrator.errors import RunDirectoryError
from orchestrator.guard import Guard
from orchestrator.records import EpochRow, TrialFailure, TrialPause, TrialRecord, Weights

if TYPE_CHECKING:
    from orchestrator.trial import TrialInput, TrialRun

_FIRST_STEP_SECONDS, _STEP_SECONDS = 0.5, 2.0
"""A step runs as many epochs as fit: each report to Tune costs ten milliseconds of a busy machine,
in which its trial waits. The first one is shorter: it says that the trial is under way."""


# Tune formats every result that it is given, whether anybody reads it or not.
@dataclass(frozen=True, repr=False)
class Step:
    """What came of some epochs of a trial.

    Attributes:
        rows: each epoch with its seconds.
        outcome: of the trial, if it has ended or waits.
        weights: of one that has ended well, if its job asks for them.
        checkpoint: what is to be kept for the trial.
        remark: what the user should know of it.
        saved: nothing was run; the trial has saved itself, as it was told to.
        lost: why nothing more can be run, which is no fault of the trial.
    """

    rows: tuple[tuple[EpochRow, float], ...] = ()
    outcome: TrialRecord | TrialFailure | TrialPause | None = None
    weights: Weights | None = None
    checkpoint: Checkpoint | None = None
    remark: str = ""
    saved: bool = False
    lost: str = ""

    @property
    def last(self) -> bool:
        """Whether no further step can follow."""
        return self.outcome is not None or bool(self.lost)


class Worker:
    """Runs trials in this process, and ends it where one takes too long."""

    def __init__(self, told: Callable[[], bool]) -> None:
        """Take a function that says whether trials are to save themselves and wait."""
        self._told = told
        self._guard = Guard()
        self._run: TrialRun | None = None
        self._storage: Path | None = None
        self._seconds = _FIRST_STEP_SECONDS

    def begin(
        self,
        given: Callable[[], TrialInput],
        *,
        storage: Path | None,
        timeout: float | None,
        stacks: Path,
    ) -> None:
        """Take a trial, whatever became of the one before.

        Args:
            given: fetches the trial's input, under the deadline that holds for all that follows.
            storage: folder that the trial's checkpoints go into; None to hand them over.
            timeout: seconds after which this process is ended.
            stacks: file that is told shortly before what every thread is doing.
        """
        from orchestrator.trial import TrialRun

        self._run = None
        if timeout is not None:
            self._guard.arm(timeout, stacks)
        self._run, self._storage = TrialRun(given()), storage
        self._seconds = _FIRST_STEP_SECONDS

    def step(self) -> Step:
        """Run epochs for some time, or until a checkpoint to hand over or the end of the trial.

        Raises:
            RuntimeError: there is no trial.
        """
        if self._run is None:
            raise RuntimeError("a worker without a trial")
        end = time.monotonic() + self._seconds
        self._seconds = _STEP_SECONDS
        try:
            if self._told():
                return Step(checkpoint=self._kept(self._run.checkpoint(now=True)), saved=True)
            return self._epochs(self._run, end)
        except RunDirectoryError as error:
            # Of the storage: it would befall every other trial too.
            return Step(lost=str(error))

    def _epochs(self, run: TrialRun, end: float) -> Step:
        rows: list[tuple[EpochRow, float]] = []
        checkpoint = None
        while run.outcome is None and checkpoint is None:
            row = run.step()
            if row is not None:
                rows.append((row, run.step_seconds))
            checkpoint = self._kept(run.checkpoint())
            if time.monotonic() >= end:
                break
        if run.outcome is not None:
            self._guard.disarm()
        return Step(tuple(rows), run.outcome, run.weights, checkpoint, run.remark)

    def _kept(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """The checkpoint if it is to be handed over; else it is in the storage."""
        if checkpoint is None or self._storage is None:
            return checkpoint
        write_checkpoint(storage_file(self._storage, checkpoint.trial), checkpoint)
        return None
