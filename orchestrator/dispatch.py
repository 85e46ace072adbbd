"""Dispatch: which trial starts next, and what becomes of those that run.

In the driver, and without Ray: whoever starts the trials asks for one after the other and hands
over what is heard of them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from orchestrator.checkpoint import Checkpoint
from orchestrator.deaths import death
from orchestrator.errors import LostError
from orchestrator.executors import Job, Observer, Stages, tell
from orchestrator.records import Cause, TrialFailure, TrialPause, TrialRecord, Weights
from orchestrator.retries import Retries, larger_share
from orchestrator.worker import Step

_WAIT_SECONDS = 60.0
"""How long no trial runs before the user is told, again and again."""


@dataclass(frozen=True)
class Start:
    """A trial that is to start.

    Attributes:
        index: in the job's trials.
        gpus: its share of a GPU, or how many.
        epoch: the first that it runs.
    """

    index: int
    gpus: float
    epoch: int


class Dispatch:
    """The trials at hand, and after them those that their results call for.

    Those to be started again come first, then the others in their order.

    Attributes:
        job: without its arrays.
        observer: who is told what becomes of its trials.
        gpus: of one trial, where GPUs are not shared.
        error: what ends the sweep and is no trial's fault: what the observer or the next job's
            making raised (the disk is full, say), or that a worker cannot save trials any more.
        following: a job that the workers at hand cannot run.
        closed: nothing more is to start.
    """

    def __init__(self, job: Job, observer: Observer, stages: Stages, gpus: float) -> None:
        """Begin with a job; the next ones come from `stages`."""
        self.gpus = gpus
        self.error: Exception | None = None
        self.following: tuple[Job, Observer] | None = None
        self.closed = False
        self._stages = stages
        self._specs = job.arrays.keys()
        self._retries = Retries(job.max_failures)
        self._given: dict[int, Start] = {}
        self._since: dict[int, float] = {}
        self._saved: set[int] = set()
        self._take(job, observer)

    def _take(self, job: Job, observer: Observer) -> None:
        self.job, self.observer = replace(job, arrays={}), observer
        self.share(whole(job, self.gpus))

    def share(self, gpus: Sequence[float]) -> None:
        """Take the GPUs of each trial of the job, none of which has been started."""
        self._waiting = deque(enumerate(gpus))
        self._idle_since, self._patience = time.monotonic(), _WAIT_SECONDS

    def next(self) -> tuple[Start, Checkpoint | None] | None:
        """The next trial and where it goes on; None while all that are left run, and at the end."""
        if not (self.closed or self._waiting or self._given):
            self.closed = not self._advance()
        room = len(self._given) < (self.job.jobs or math.inf)
        if self.closed or not self._waiting or not room:
            return None
        index, gpus = self._waiting.popleft()
        last = self.observer.last_checkpoint(self.job.trials[index].id)
        self._given[index] = Start(index, gpus, 0 if last is None else last.epoch)
        return self._given[index], last

    @property
    def over(self) -> bool:
        """Whether nothing is left to start, now or later."""
        return self.closed or not (self._waiting or self._given)

    def _advance(self) -> bool:
        """Go on to the next job; whether there is one that the workers at hand can run."""
        found = None
        with self.kept():
            found = next(self._stages, None)
        if found is None:
            return False
        # Trials of other kinds are to be tried out first, with the GPUs free.
        packed = self.gpus > 0 and self.job.resources.gpu == "auto"
        if packed or found[0].arrays.keys() - self._specs:
            self.following = found
            return False
        self._take(*found)
        return True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what is raised: it is no trial's own fault, and ends the sweep."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    def passes(self) -> None:
        """Some time has passed: tell the observer where no trial has run for long."""
        now = time.monotonic()
        if self._since:
            self._idle_since, self._patience = now, _WAIT_SECONDS
        elif now - self._idle_since > self._patience:
            with self.kept():
                self.observer.waiting(now - self._idle_since)
            self._patience += _WAIT_SECONDS

    def started(self, index: int) -> None:
        """A trial has a worker."""
        self._since[index] = time.monotonic()
        trial = self.job.trials[index].id
        self._retries.started(trial)
        with self.kept():
            start = self._given.get(index)
            self.observer.started(trial, 0 if start is None else start.epoch)

    def runs(self, index: int) -> bool:
        """Whether a trial has a worker."""
        return index in self._since

    @property
    def all_saved(self) -> bool:
        """Whether each running trial has been asked to save itself and has answered."""
        return self._since.keys() <= self._saved

    def heard(self, index: int, step: Step) -> None:
        """What a running trial says; of one that has ended it is not listened to."""
        if index not in self._given:
            return
        if step.saved:
            self._saved.add(index)
        with self.kept():
            if step.lost:
                raise LostError(step.lost)
            self._note(index, step)

    def _note(self, index: int, step: Step) -> None:
        trial = self.job.trials[index].id
        if step.remark and any(row.epoch == 0 for row, _ in step.rows):
            self.observer.remark(trial, step.remark)
        for row, seconds in step.rows:
            self.observer.epoch(trial, row, seconds)
        if step.checkpoint is not None:
            self.observer.checkpoint(step.checkpoint)
        if isinstance(step.outcome, TrialPause):
            self._left(index)
            self._retries.paused(trial)
            tell(step.outcome, None, self.observer)
        elif step.outcome is not None:
            self._ended(index, step.outcome, step.weights)

    def died(self, index: int, story: str, stacks: str) -> None:
        """A running trial's worker is gone.

        Args:
            index: in the job's trials.
            story: what is said of the death; see `death`.
            stacks: what the process did shortly before its deadline, if that is known.
        """
        if index not in self._given:
            return
        seconds = time.monotonic() - self._since.get(index, math.inf)
        with self.kept():
            failure = death(self.job.trials[index].id, story, seconds, self.job.timeout)
            if failure.cause is Cause.TIMEOUT and stacks:
                failure = replace(failure, traceback=f"{stacks}\n{story}")
            self._ended(index, failure)

    def _ended(
        self, index: int, outcome: TrialRecord | TrialFailure, weights: Weights | None = None
    ) -> None:
        start = self._left(index)
        known = self._retries.attempts.get(outcome.trial, 1)
        timing = replace(outcome.timing, attempts=max(known, outcome.timing.attempts))
        outcome = replace(outcome, timing=timing)
        if isinstance(outcome, TrialRecord) and outcome.twin is not None:
            outcome = replace(outcome, twin=replace(outcome.twin, timing=timing))
        if isinstance(outcome, TrialFailure) and self._again(start, outcome):
            return
        tell(outcome, weights, self.observer)

    def _left(self, index: int) -> Start:
        """A trial has no worker any more; how it was started."""
        self._since.pop(index, None)
        return self._given.pop(index)

    def _again(self, start: Start, failure: TrialFailure) -> bool:
        """Let a trial wait to be started again if it may be; whether it may."""
        if not self._retries.again(failure.trial, failure.cause, start.gpus):
            return False
        more = larger_share(start.gpus) if failure.cause is Cause.GPU_MEMORY else None
        self._waiting.appendleft((start.index, more or start.gpus))
        self.observer.retried(failure)
        return True


def whole(job: Job, gpus: float) -> tuple[float, ...]:
    """The GPUs of each trial where they are not shared."""
    # An estimator computes on a CPU, whatever its neighbours in the plan have.
    trained = [trial.configuration.train is not None for trial in job.trials]
    return tuple(gpus if needs_it else 0.0 for needs_it in trained)
