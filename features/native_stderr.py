"""Standard error below Python, which C libraries write to without being asked.

libsndfile reads MP3 by libmpg123, which prints notes on every damaged frame; neither can be told
to keep quiet through libsndfile's interface. What is wrong with a clip is said once, by us.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_FILE = 2

_lock = threading.Lock()
_muting = 0
_kept = -1


@contextmanager
def muted() -> Iterator[None]:
    """Lead the process's standard error nowhere, in all threads, as long as any block lasts."""
    global _muting, _kept
    with _lock:
        if _muting == 0:
            _kept = _lead_nowhere()
        _muting += 1
    try:
        yield
    finally:
        with _lock:
            _muting -= 1
            if _muting == 0 and _kept >= 0:
                os.dup2(_kept, _FILE)
                os.close(_kept)


def _lead_nowhere() -> int:
    """A copy of what standard error was; -1 where it is closed."""
    try:
        kept = os.dup(_FILE)
    except OSError:
        return -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _FILE)
    os.close(nowhere)
    return kept
