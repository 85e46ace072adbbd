"""Deaths: what became of a trial whose process did not live to say it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from orchestrator.deadline import TrialTimeout
from orchestrator.records import Cause, Timing, TrialFailure

_LOST = re.compile(
    r"node has died|node (?:was|is) (?:dead|terminated)|NodeDiedError|ActorUnavailableError"
    r"|never ran|owner .{0,40}died|Worker exits? (?:because|due to) .{0,20}node|preempted",
    re.IGNORECASE,
)
# Not "out of memory" alone: Ray names it among the possible causes of any death.
_MEMORY = re.compile(r"NODE_OUT_OF_MEMORY|exceptions\.OutOfMemoryError|running low on memory")


def death(trial: str, story: str, seconds: float, timeout: float | None) -> TrialFailure:
    """The failure of a trial whose worker died.

    Args:
        trial: its identity.
        story: what Ray says of the death.
        seconds: how long the attempt had run.
        timeout: `execution.trial_timeout`.
    """
    cause = _cause(story, seconds, timeout)
    return TrialFailure(
        trial=trial,
        error=_error(cause, timeout),
        traceback=story,
        timing=Timing(datetime.now(UTC).isoformat(), 0.0, 0.0, 1, "", ""),
        cause=cause,
    )


def _cause(story: str, seconds: float, timeout: float | None) -> Cause:
    if _LOST.search(story):
        return Cause.LOST
    # The guard of a worker can only kill it: the time tells that it did.
    if timeout is not None and seconds >= timeout:
        return Cause.TIMEOUT
    return Cause.MEMORY if _MEMORY.search(story) else Cause.DIED


def _error(cause: Cause, timeout: float | None) -> str:
    if cause is Cause.TIMEOUT and timeout is not None:
        return f"TrialTimeout: {TrialTimeout(timeout)}"
    if cause is Cause.MEMORY:
        return "WorkerDied: the machine's memory ran out (fewer trials at once need less: --jobs)"
    if cause is Cause.LOST:
        return "WorkerDied: its node was lost"
    return "WorkerDied: the process of the trial died"
