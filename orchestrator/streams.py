"""Standard output and error that outlive their reader: a sweep need not end with its terminal."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Lasting(io.FileIO):
    """A file descriptor that swallows what is written to it once that cannot be.

    Attributes:
        error: why; None while it can be.
    """

    error: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, or do as if."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            # For whoever else writes there, libraries in C and child processes included.
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, no path
                os.dup2(nowhere.fileno(), self.fileno())
            return memoryview(data).nbytes


@contextmanager
def lasting() -> Iterator[Lost]:
    """In the block `sys.stdout` and `sys.stderr` go silent where they cannot be written to.

    Streams that are not the process's own (of a test, of a notebook) stay as they are.
    """
    before = sys.stdout, sys.stderr
    out, sys.stdout = _lasting(sys.stdout, sys.__stdout__)
    _, sys.stderr = _lasting(sys.stderr, sys.__stderr__)
    try:
        yield Lost(out)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


class Lost:
    """Whether something written to standard output was lost that somebody waits for."""

    def __init__(self, raw: _Lasting | None) -> None:
        self._raw = raw

    @property
    def reason(self) -> str:
        """Why, in the system's words; empty where nothing was lost, or nobody reads it any more."""
        error = self._raw.error if self._raw else None
        if error is None or error.errno in (errno.EPIPE, errno.EIO):
            return ""
        return error.strerror or type(error).__name__


def _lasting(stream: TextIO | None, own: TextIO | None) -> tuple[_Lasting | None, TextIO]:
    if stream is None:
        # Closed before we were started: `foldgrid run ... >&-`.
        return None, open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - a device
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return None, stream
    if stream is not own or not isinstance(stream, io.TextIOWrapper):
        return None, stream
    stream.flush()
    raw = _Lasting(descriptor, "wb", closefd=False)
    return raw, _text(raw, stream)


def twin(stream: TextIO) -> TextIO | None:
    """A lasting stream to the same place on a descriptor of its own; None of a stream not lasting.

    For what is to be seen while the first one's descriptor leads elsewhere.
    """
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if not isinstance(raw, _Lasting) or not isinstance(stream, io.TextIOWrapper):
        return None
    return _text(_Lasting(os.dup(raw.fileno()), "wb"), stream)


def _text(raw: _Lasting, like: io.TextIOWrapper) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding,
        errors="backslashreplace",
        line_buffering=like.line_buffering,
        write_through=like.write_through,
    )
