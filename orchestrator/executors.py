"""The Executor protocol, and the executor that runs trials in this process."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import numpy.typing as npt

from features.arrays import FeatureArray
from features.spec import FeatureSpec
from orchestrator.checkpoint import Checkpoint
from orchestrator.folds import Split
from orchestrator.packing import CONTEXT_BYTES
from orchestrator.records import EpochRow, TrialFailure, TrialPause, TrialRecord, Weights
from orchestrator.retries import Retries, with_advice
from orchestrator.specification import ResourcesSpec
from orchestrator.trials import Trial

if TYPE_CHECKING:
    from orchestrator.trial import TrialInput, TrialRun


@dataclass(frozen=True)
class Job:
    """What an executor has to run.

    Attributes:
        trials: in the order in which they are to start.
        arrays: features by feature configuration, `float32 [n, c, t]`, never written to.
        labels: class index of every clip, `int64 [n]`.
        splits: by `(test fold, validation fold)`.
        twins: the trial that a trial's training is judged for too, by the first one's identity.
        stops: the epochs after which a trial ends, by its identity, where not after all.
        pauses: the epochs after which a trial waits, likewise, unless it has ended.
        classes: how many.
        import_path: folders that a user's model is imported from.
        resources: of one trial.
        max_failures: how often a trial is started again whose process died, hung or ran out of
            memory.
        jobs: most trials at once; None for as many as fit.
        checkpoint_every: epochs between two checkpoints of a trial.
        timeout: seconds that an attempt may take; None for no limit.
        storage: folder in which workers keep checkpoints as `<trial>.pt`; None to hand them over.
        keep_weights: whether finished trials are to hand over their weights.
        more: whether the results may call for further trials: whoever runs these is kept for them.
    """

    trials: Sequence[Trial]
    arrays: Mapping[FeatureSpec, FeatureArray]
    labels: npt.NDArray[np.int64]
    splits: Mapping[tuple[int | None, int | None], Split]
    classes: int
    import_path: tuple[Path, ...]
    resources: ResourcesSpec
    max_failures: int = 0
    jobs: int | None = None
    checkpoint_every: int = 10
    timeout: float | None = None
    storage: Path | None = None
    twins: Mapping[str, Trial] = field(default_factory=dict)
    stops: Mapping[str, int] = field(default_factory=dict)
    pauses: Mapping[str, int] = field(default_factory=dict)
    keep_weights: bool = False
    more: bool = False


class Observer(Protocol):
    """Who is told what happens, and keeps what is to last; in the driver's process."""

    def started(self, trial: str, epoch: int) -> None:
        """A trial runs its first step, from this epoch on, or starts again."""

    def epoch(self, trial: str, row: EpochRow, seconds: float) -> None:
        """A trial ended an epoch that took it so long, the first one with building the model."""

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """A running trial can be gone on with from here."""

    def last_checkpoint(self, trial: str) -> Checkpoint | None:
        """Where a trial was when it last could be gone on with, in this call or an earlier one."""

    def remark(self, trial: str, text: str) -> None:
        """Something that the user should know of a trial that goes on."""

    def gpus_shared(self, text: str) -> None:
        """What the user should know of how trials share GPUs."""

    def waiting(self, seconds: float) -> None:
        """No trial has run for so long: the cluster has no room for one now."""

    def retried(self, failure: TrialFailure) -> None:
        """An attempt at a trial ended; it will be started again."""

    def finished(self, record: TrialRecord, weights: Weights | None) -> None:
        """A trial ended well; with its weights if the job asks for them."""

    def failed(self, failure: TrialFailure) -> None:
        """A trial ended with an error."""

    def paused(self, pause: TrialPause) -> None:
        """A trial waits after some epochs; its checkpoint has been handed over."""


Stages = Iterator[tuple[Job, Observer]]
"""One job after the other; the next is asked for when every trial of the one before has ended, or
waits."""


class Executor(Protocol):
    """Runs trials and hands over what they give; writes nothing itself.

    What it needs is started with the first job, kept for further ones and ended with the context.
    """

    def __enter__(self) -> Self:
        """Be ready for jobs."""

    def __exit__(self, *error: object) -> None:
        """End what was started."""

    def run(self, stages: Stages, stop: threading.Event) -> None:
        """Run every trial of every job, or until `stop` is set: then the running ones are saved.

        Raises:
            FoldgridError: the trials cannot be run here, or no longer.
        """


class SerialExecutor:
    """One trial after the other in this process, without Ray: for debugging and notebooks."""

    def __enter__(self) -> Self:
        """Nothing is to be started."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nor to be ended."""

    def run(self, stages: Stages, stop: threading.Event) -> None:
        """Run the trials in the order of their jobs; see `Executor`."""
        retries: Retries | None = None
        for job, observer in stages:
            retries = retries or Retries(job.max_failures)
            _run_job(job, observer, stop, retries)


def _run_job(job: Job, observer: Observer, stop: threading.Event, retries: Retries) -> None:
    gpus = gpus_alone(job.resources)
    waiting = deque(job.trials)
    while waiting and not stop.is_set():
        trial = waiting.popleft()
        retries.started(trial.id)
        run = _attempt(job, trial, gpus, observer, stop)
        outcome = run.outcome
        # Alone in its process a trial has the whole GPU: no larger share can be had.
        if isinstance(outcome, TrialFailure) and retries.again(trial.id, outcome.cause):
            observer.retried(outcome)
            waiting.appendleft(trial)
        else:
            tell(outcome, run.weights, observer)


def _attempt(
    job: Job, trial: Trial, gpus: float, observer: Observer, stop: threading.Event
) -> TrialRun:
    """Run a trial from its last checkpoint on, to its end or until it is stopped."""
    # Not at module level: torch takes seconds to import and `plan` needs none of it.
    from orchestrator.trial import TrialRun, warm_up

    warm_up(trial.configuration.model)
    last = observer.last_checkpoint(trial.id)
    observer.started(trial.id, 0 if last is None else last.epoch)
    features = job.arrays[trial.configuration.features]
    run = TrialRun(trial_input(job, trial, features, gpus, last, job.timeout))
    while run.outcome is None:
        row = run.step()
        if run.remark and row is not None and row.epoch == 0:
            observer.remark(trial.id, run.remark)
        if row is not None:
            observer.epoch(trial.id, row, run.step_seconds)
        checkpoint = run.checkpoint(now=stop.is_set())
        if checkpoint is not None:
            observer.checkpoint(checkpoint)
        if stop.is_set():
            break
    return run


def tell(
    outcome: TrialRecord | TrialFailure | TrialPause | None,
    weights: Weights | None,
    observer: Observer,
) -> None:
    """Hand over what a trial gave; None, from one that was interrupted, is nothing."""
    if isinstance(outcome, TrialRecord):
        observer.finished(outcome, weights)
    elif isinstance(outcome, TrialPause):
        observer.paused(outcome)
    elif outcome is not None:
        observer.failed(with_advice(outcome))


def trial_input(
    job: Job,
    trial: Trial,
    features: FeatureArray,
    gpus: float,
    checkpoint: Checkpoint | None = None,
    timeout: float | None = None,
    gpu_context: int = CONTEXT_BYTES,
) -> TrialInput:
    """What one trial of a job needs, its features given apart: they may live elsewhere."""
    from orchestrator.training import SplitData
    from orchestrator.trial import TrialInput

    split, twin = job.splits[trial.test_fold, trial.fold], job.twins.get(trial.id)
    val, test, of_twin = (
        np.asarray(clips, dtype=np.int64) if clips else None
        for clips in (split.val, split.test, split.twin if twin else ())
    )
    return TrialInput(
        trial=trial,
        features=features,
        labels=job.labels,
        split=SplitData(np.asarray(split.train), val, test, of_twin),
        classes=job.classes,
        import_path=job.import_path,
        gpus=gpus,
        gpu_context=gpu_context,
        checkpoint=checkpoint,
        stop=job.stops.get(trial.id),
        pause=job.pauses.get(trial.id),
        twin=twin,
        draws=split.draws,
        checkpoint_every=job.checkpoint_every,
        timeout=timeout,
        keep_weights=job.keep_weights,
    )


def gpus_alone(resources: ResourcesSpec) -> float:
    """The GPUs of a trial: where it shall have a share of one, a whole one, as it is alone."""
    if resources.gpu != "auto":
        return float(math.ceil(resources.gpu))
    import torch

    return 1.0 if torch.cuda.is_available() else 0.0
