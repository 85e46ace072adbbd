"""Remaining: how long a sweep still takes, while it runs and before it is continued.

Workers take one trial after the other from one list, so the end of the sweep is found by doing
the same with the trials' estimated seconds.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from statistics import median
from typing import Concatenate, ParamSpec, TypeVar

from orchestrator.costs import Costs, Note
from orchestrator.trials import Trial

_PATIENCE = 30.0
"""Seconds after which a worker that takes no trial, while trials wait, counts as gone."""

_DUTY = 100
"""Of the time, one part in so many may go into the estimate; in between it counts down."""


def makespan(running: Iterable[float], waiting: Iterable[float], workers: int) -> float:
    """The seconds until the last trial ends.

    Args:
        running: seconds that each running trial will still take; each has a worker of its own.
        waiting: seconds of the others, in the order in which they start.
        workers: how many there are, the busy ones included; at least one is taken to be.
    """
    ends = list(running)
    ends += [0.0] * (max(workers, 1) - len(ends))
    heapify(ends)
    for seconds in waiting:
        heapreplace(ends, ends[0] + seconds)
    return max(ends)


_Given = ParamSpec("_Given")
_Value = TypeVar("_Value")


def _alone(
    method: Callable[Concatenate[Remaining, _Given], _Value],
) -> Callable[Concatenate[Remaining, _Given], _Value]:
    """Let one thread at a time into a method: the display has a thread of its own, and asks."""

    @functools.wraps(method)
    def locked(self: Remaining, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Value:
        with self.lock:
            return method(self, *args, **kwargs)

    return locked


@dataclass(slots=True)
class _Running:
    """A trial that has a worker.

    Attributes:
        begun: when it got its worker.
        fresh: whether its worker is a new one, whose first trial waits for more than others do.
        given: epochs that it did not have to run, from a checkpoint.
        done: epochs, those included.
        reported: when it last told of an epoch.
        first: of the first epoch that it ran, as long as it counts.
    """

    begun: float
    fresh: bool
    given: int
    done: int
    reported: float
    first: Note | None = None


class Remaining:
    """The time that the trials of a call still take, learnt from what they tell.

    The first epoch of a trial builds the model and warms up, so that it counts as a measurement
    only as long as its trial has no second one; what it takes longer belongs, with all else
    that is not training, to the seconds that each trial costs beside its epochs. That of a new
    worker, which warms up longest, counts only as long as nothing else has been measured.

    Attributes:
        lock: held by whoever tells or asks.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        costs: Costs,
        done: Mapping[str, int],
        ends: Mapping[str, int] | None = None,
    ) -> None:
        """Begin with all trials waiting.

        Args:
            trials: in the order in which they start.
            costs: their seconds; what is learnt goes there.
            done: epochs that checkpoints spare, by the trial's identity.
            ends: the epochs that a trial runs now, likewise, where not all of its own.
        """
        self.lock = threading.Lock()
        self._costs = costs
        self._ends = ends or {}
        self._trials = {trial.id: trial for trial in trials}
        self._waiting = {trial.id: done.get(trial.id, 0) for trial in trials}
        self._running: dict[str, _Running] = {}
        self._free: deque[float] = deque()
        self._gaps: deque[float] = deque(maxlen=100)
        self._beside: deque[float] = deque(maxlen=100)
        self._guesses: list[Note] = []
        self._spent = 0.0
        self._learnt = False
        self._told: tuple[float, float, float] | None = None

    @_alone
    def started(self, trial: str, epoch: int, now: float) -> None:
        """A trial got a worker and goes on at an epoch."""
        self._waiting.pop(trial, None)
        self._running[trial] = _Running(now, not self._free, epoch, epoch, now)
        if self._free:
            self._gaps.append(now - self._free.popleft())

    @_alone
    def epoch(self, trial: str, epoch: int, seconds: float, now: float) -> None:
        """A running trial ended an epoch, counted from 0, that took it so long."""
        run = self._running.get(trial)
        if run is None:
            return
        if epoch < run.done:  # It began anew, as its checkpoint could not be used.
            run.given = epoch
        run.done, run.reported = epoch + 1, now
        first = run.done == run.given + 1
        if run.fresh and first:
            self._guess(self._trials[trial], seconds)
        else:
            self._learn(self._trials[trial], run, seconds, first=first)

    def _guess(self, trial: Trial, seconds: float) -> None:
        if not self._learnt:
            self._guesses.append(self._costs.note(trial, 1, seconds, self._weight(seconds)))

    def _learn(self, trial: Trial, run: _Running, seconds: float, *, first: bool) -> None:
        self._learnt = True
        while self._guesses:
            self._costs.take_back(self._guesses.pop())
        if run.first is not None:
            self._costs.take_back(run.first)
            run.first = None
        note = self._costs.note(trial, 1, seconds, self._weight(seconds))
        if first:
            run.first = note

    def _weight(self, seconds: float) -> float:
        """Of a measurement: the later ones count for more, should the machine get busier."""
        self._spent += seconds
        return self._spent**2

    @_alone
    def again(self, trial: str, now: float) -> None:
        """A running trial lost its worker and waits for another one, before all others."""
        if self._running.pop(trial, None) is not None:
            self._free.append(now)
        self._waiting = {trial: 0} | self._waiting

    @_alone
    def ended(self, trial: str, now: float, *, well: bool) -> None:
        """A trial came to its end, or to where it waits: not `well`, as that says nothing of it."""
        run = self._running.pop(trial, None)
        self._waiting.pop(trial, None)
        if run is None:
            return
        self._free.append(now)
        if not well:
            return
        known = self._trials[trial]
        self._costs.note_end(known, run.done)
        if not run.fresh:
            trained = (run.done - run.given) * self._costs.epoch_seconds(known)
            self._beside.append(now - run.begun - trained)

    @_alone
    def seconds(self, now: float) -> float | None:
        """Until the last trial ends; None as long as nothing has been measured or has started."""
        if not (self._running or self._waiting):
            return 0.0
        if not self._costs.measured or not (self._running or self._free):
            return None
        if self._told is not None and now < self._told[2]:
            value, then, _ = self._told
            return max(value - (now - then), 0.0)
        begun = time.perf_counter()
        value = self._simulated(now)
        self._told = value, now, now + _DUTY * (time.perf_counter() - begun)
        return value

    def _simulated(self, now: float) -> float:
        while self._waiting and self._free and now - self._free[0] > _PATIENCE:
            self._free.popleft()
        beside = _middle(self._gaps) + _middle(self._beside)
        waiting = (
            self._seconds_left(trial, done) + beside for trial, done in self._waiting.items()
        )
        running = (self._left(trial, run, now) for trial, run in self._running.items())
        return makespan(running, waiting, len(self._running) + len(self._free))

    def _left(self, trial: str, run: _Running, now: float) -> float:
        return max(self._seconds_left(trial, run.done) - (now - run.reported), 0.0)

    def _seconds_left(self, trial: str, done: int) -> float:
        known = self._trials[trial]
        epochs = self._costs.epochs_left(known, done)
        if trial in self._ends:
            epochs = min(epochs, max(self._ends[trial] - done, 0))
        return epochs * self._costs.epoch_seconds(known)


def _middle(values: deque[float]) -> float:
    return max(median(values), 0.0) if values else 0.0
