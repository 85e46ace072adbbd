"""Retries: whether a trial that did not come to its end is started again, and with what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from orchestrator.records import Cause, TrialFailure


@dataclass
class Retries:
    """The attempts at each trial, and how many more there may be.

    Attributes:
        allowed: how often a trial is started again after an attempt that counts.
        attempts: by trial, every start included.
        counted: attempts by trial that used up what is allowed.
    """

    allowed: int
    attempts: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)

    def started(self, trial: str) -> None:
        """Count a start."""
        self.attempts[trial] = self.attempts.get(trial, 0) + 1

    def paused(self, trial: str) -> None:
        """Take a start back: what goes on after a pause is the same attempt."""
        self.attempts[trial] -= 1

    def again(self, trial: str, cause: Cause, gpus: float = 0.0) -> bool:
        """Whether a trial that ended so is started again; counts it where it counts.

        Args:
            trial: which.
            cause: how it ended.
            gpus: the GPUs it had.
        """
        if cause is Cause.OWN:
            return False
        if cause is Cause.LOST:
            return True
        if cause is Cause.GPU_MEMORY:
            # Bounded without counting: each time it gets a larger share.
            return larger_share(gpus) is not None
        self.counted[trial] = self.counted.get(trial, 0) + 1
        return self.counted[trial] <= self.allowed


def larger_share(gpus: float) -> float | None:
    """At least twice the share of a GPU; None where the trial had a whole one, or none.

    Shares are 1/n, since no other fraction packs GPUs without a rest.

    >>> [larger_share(gpus) for gpus in (0.125, 0.25, 1 / 3, 0.5, 1.0, 0.0)]
    [0.25, 0.5, 1.0, 1.0, None, None]
    """
    if gpus <= 0 or gpus >= 1:
        return None
    return 1.0 / (round(1 / gpus) // 2)


def with_advice(failure: TrialFailure) -> TrialFailure:
    """A failure that stays one, its error saying what may help where that is known."""
    if failure.cause is not Cause.GPU_MEMORY:
        return failure
    # Without PyTorch's figures, which differ from one time to the next.
    advice = "try a smaller train.batch_size, model or features"
    error = f"OutOfMemoryError: a whole GPU's memory does not suffice; {advice}"
    return replace(failure, error=error)
