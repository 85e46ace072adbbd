"""Deaths: what became of a trial whose process did not live to say it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from orchestrator.deadline import TrialTimeout
from orchestrator.error_line import plain_line
from orchestrator.records import Cause, Timing, TrialFailure

_NODE_DIED = re.compile(r"node has died|node was terminated|actor never ran|preempted")
_UNREACHABLE = re.compile(r"The actor \w+ is unavailable")
# Not "out of memory" alone: Ray names it among the possible causes of any death.
_MEMORY = re.compile(r"NODE_OUT_OF_MEMORY|running low on memory")
_NOT_STARTED = "raised in its creation task"


def death(trial: str, story: str, seconds: float, timeout: float | None) -> TrialFailure:
    """The failure of a trial whose worker died.

    Args:
        trial: its identity.
        story: what Ray says of the death, without the exception's type.
        seconds: how long the attempt had run.
        timeout: `execution.trial_timeout`.
    """
    cause = _cause(story, seconds, timeout)
    return TrialFailure(
        trial=trial,
        error=_error(cause, story, timeout),
        traceback=story,
        timing=Timing(datetime.now(UTC).isoformat(), 0.0, 0.0, 1, "", ""),
        cause=cause,
    )


def _cause(story: str, seconds: float, timeout: float | None) -> Cause:
    if _NODE_DIED.search(story):
        return Cause.LOST
    # The guard of a worker can only kill it: the time tells that it did. Before what follows,
    # since on a busy machine the process that it killed may only seem out of reach.
    if timeout is not None and seconds >= timeout:
        return Cause.TIMEOUT
    if _UNREACHABLE.search(story):
        return Cause.LOST
    return Cause.MEMORY if _MEMORY.search(story) else Cause.DIED


def _error(cause: Cause, story: str, timeout: float | None) -> str:
    if cause is Cause.TIMEOUT and timeout is not None:
        return f"TrialTimeout: {TrialTimeout(timeout)}"
    if cause is Cause.MEMORY:
        return "WorkerDied: the machine's memory ran out (fewer trials at once need less: --jobs)"
    if cause is Cause.LOST:
        return "WorkerDied: its node was lost"
    if _NOT_STARTED in story:
        return plain_line(f"WorkerDied: it could not start: {story.strip().splitlines()[-1]}")
    return "WorkerDied: the process of the trial died"
