"""Memory that a process has freed and will want again for the next batch or clip."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_LARGEST = 32 * 2**20
"""Bytes of a block that is kept; glibc takes no larger value."""

_KEPT = 512 * 2**20
"""Bytes that are kept at most at the end of the heap."""


def keep_freed_memory() -> None:
    """Let this process keep the memory of one batch for the next; nothing where there is no glibc.

    Else each large tensor is given back to the system and asked for anew, page by page: up to
    40,000 page faults an epoch, and a tenth of its time.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def give_back_freed_memory() -> None:
    """Give back to the system what has been kept; later blocks are kept as before."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
