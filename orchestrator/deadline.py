"""A deadline for a piece of work in this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TrialTimeout(BaseException):
    """An attempt at a trial took longer than `execution.trial_timeout`.

    No Exception, which a user's model may catch.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no end within {seconds:g} s (execution.trial_timeout)")


@contextmanager
def deadline(seconds: float | None, limit: float) -> Iterator[None]:
    """Raise TrialTimeout in the block when the time is over, wherever Python code then is.

    Code that does not come back to Python is not stopped: that needs another process.

    Args:
        seconds: from now on; None for no deadline.
        limit: of the whole attempt, for the message.

    Raises:
        TrialTimeout: the time was over before the block ended.
    """
    if seconds is None:
        yield
        return
    if seconds <= 0:
        raise TrialTimeout(limit)
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can be interrupted; the next call finds the time to be over.
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TrialTimeout(limit)

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again, as the first one may be caught by a bare except.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
