"""Memory that a process has freed and will want again for the next batch or clip."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_LARGEST = 32 * 2**20
"""Bytes of a block that is kept; glibc takes no larger value."""

_KEPT = 512 * 2**20
"""Bytes that are kept at most at the end of the heap."""

_DEFAULT = 128 * 2**10
"""Bytes, for both."""


def keep_freed_memory() -> None:
    """Let this process keep the memory of one batch for the next; nothing where there is no glibc.

    Else each large tensor is given back to the system and asked for anew, page by page: up to
    40,000 page faults an epoch, and a tenth of its time.
    """
    with suppress(OSError, AttributeError):
        _limit(_LARGEST, _KEPT)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """The same as long as the block lasts; then what is free is given back."""
    keep_freed_memory()
    try:
        yield
    finally:
        with suppress(OSError, AttributeError):
            _limit(_DEFAULT, _DEFAULT)
            ctypes.CDLL(None).malloc_trim(0)


def _limit(largest: int, kept: int) -> None:
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, largest)
    mallopt(_M_TRIM_THRESHOLD, kept)
