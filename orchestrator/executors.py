"""The Executor protocol, and the executor that runs trials in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from features.arrays import FeatureArray
from features.spec import FeatureSpec
from orchestrator.folds import Split
from orchestrator.records import EpochRow, TrialFailure, TrialRecord
from orchestrator.specification import ResourcesSpec
from orchestrator.trials import Trial

if TYPE_CHECKING:
    from orchestrator.trial import TrialInput


@dataclass(frozen=True)
class Job:
    """What an executor has to run.

    Attributes:
        trials: in plan order; the order in which they start is the executor's affair.
        arrays: features by feature configuration, `float32 [n, c, t]`, never written to.
        labels: class index of every clip, `int64 [n]`.
        splits: by `(test fold, validation fold)`.
        classes: how many.
        import_path: folders that a user's model is imported from.
        resources: of one trial.
        max_failures: how often a trial whose process died is started again.
        jobs: most trials at once; None for as many as fit.
    """

    trials: Sequence[Trial]
    arrays: Mapping[FeatureSpec, FeatureArray]
    labels: npt.NDArray[np.int64]
    splits: Mapping[tuple[int | None, int], Split]
    classes: int
    import_path: tuple[Path, ...]
    resources: ResourcesSpec
    max_failures: int = 0
    jobs: int | None = None


class Observer(Protocol):
    """Who is told what happens; every call comes in the driver's process."""

    def started(self, trial: str) -> None:
        """A trial runs its first step, or starts again."""

    def epoch(self, trial: str, row: EpochRow) -> None:
        """A trial ended an epoch."""

    def finished(self, record: TrialRecord) -> None:
        """A trial ended well."""

    def failed(self, failure: TrialFailure) -> None:
        """A trial ended with an error."""


class Executor(Protocol):
    """Runs trials and hands over what they give; writes nothing itself."""

    def run(self, job: Job, observer: Observer, stop: threading.Event) -> None:
        """Run every trial of the job, or until `stop` is set: then the running ones end.

        Raises:
            FoldgridError: the trials cannot be run here, or no longer.
        """


class SerialExecutor:
    """One trial after the other in this process, without Ray: for debugging and notebooks."""

    def run(self, job: Job, observer: Observer, stop: threading.Event) -> None:
        """Run the trials in plan order; see `Executor`."""
        # Not at module level: torch takes seconds to import and `plan` needs none of it.
        from orchestrator.trial import TrialRun

        gpus = _gpus(job.resources)
        for trial in job.trials:
            if stop.is_set():
                return
            observer.started(trial.id)
            run = TrialRun(trial_input(job, trial, job.arrays[trial.configuration.features], gpus))
            while run.outcome is None and not stop.is_set():
                row = run.step()
                if row is not None:
                    observer.epoch(trial.id, row)
            tell(run.outcome, observer)


def tell(outcome: TrialRecord | TrialFailure | None, observer: Observer) -> None:
    """Hand over what a trial gave; None, from one that was interrupted, is nothing."""
    if isinstance(outcome, TrialRecord):
        observer.finished(outcome)
    elif outcome is not None:
        observer.failed(outcome)


def trial_input(job: Job, trial: Trial, features: FeatureArray, gpus: float) -> TrialInput:
    """What one trial of a job needs, its features given apart: they may live elsewhere."""
    from orchestrator.training import SplitData
    from orchestrator.trial import TrialInput

    split = job.splits[trial.test_fold, trial.fold]
    test = np.asarray(split.test, dtype=np.int64) if split.test else None
    return TrialInput(
        trial=trial,
        features=features,
        labels=job.labels,
        split=SplitData(np.asarray(split.train), np.asarray(split.val), test),
        classes=job.classes,
        import_path=job.import_path,
        gpus=gpus,
        attempts=1,
    )


def _gpus(resources: ResourcesSpec) -> float:
    if resources.gpu != "auto":
        return float(resources.gpu)
    import torch

    return 1.0 if torch.cuda.is_available() else 0.0
