"""Interrupts: what SIGINT, SIGTERM and SIGHUP do, from the first moment of the program on.

The C handler itself wakes a thread (`signal.set_wakeup_fd`), which decides: handlers written in
Python wait until the main thread comes back from whatever call into C it is in. Imports nothing
heavy, since the command installs it before anything else is imported.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

EXIT_CODE = 130
"""Of an interrupted program, whatever the signal."""

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_ECHO_SECONDS = {signal.SIGHUP: 2.0}
_ECHO = 0.1
"""Seconds after a signal in which another is its echo: a closed terminal is told by the kernel and
again by the shell, Ctrl-C by the terminal and again by a wrapper that passes signals on."""


class _Watch:
    """Receives the signals of this process; only one is at work at a time.

    Attributes:
        stops: events of the open `interruptible` blocks.
        ends: a second signal ends the process; otherwise, in a program that is not ours, it raises
            KeyboardInterrupt in the main thread.
    """

    def __init__(self) -> None:
        self.stops: list[threading.Event] = []
        self.working = False
        self.ends = True
        self._writer, self._wakeup = -1, -1
        self._terminal: str | None = None
        self._told: float | None = None

    def open(self, stop: threading.Event) -> None:
        """From now on the first signal sets this event."""
        if not self.stops:
            self._told = None
        self.stops.append(stop)

    def receive(self, number: int) -> None:
        """One signal."""
        now = time.monotonic()
        if self.stops and self._told is None:
            self._told = now
            for stop in self.stops:
                stop.set()
        elif self.ends and not self._is_echo(number, now):
            _end(self._terminal)

    def _is_echo(self, number: int, now: float) -> bool:
        echo = _ECHO_SECONDS.get(signal.Signals(number), _ECHO)
        return self._told is not None and now - self._told <= echo

    def _raise_if_told(self, number: int, frame: FrameType | None) -> None:
        """The handler in a program that is not ours."""
        if self._told is not None and not self._is_echo(number, time.monotonic()):
            raise KeyboardInterrupt

    def start(self, *, ends: bool = True) -> None:
        """Receive signals from now on; in the main thread only."""
        self.ends = ends
        # Now, since standard error leads nowhere while clips are decoded.
        self._terminal = _terminal()
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._listen, args=(reader,), daemon=True)
        self._thread.start()
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        numbers = [n for n in NUMBERS if not _refused(n)]
        handler = _nothing if ends else self._raise_if_told
        self._before = {n: signal.signal(n, handler) for n in numbers}
        self.working = True

    def end(self) -> None:
        """Leave signals to whom they were left before."""
        self.working = False
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writer)
        self._thread.join()

    def _listen(self, reader: int) -> None:
        while told := os.read(reader, 1):
            if told[0] in NUMBERS:
                self.receive(told[0])
        os.close(reader)


_watch = _Watch()


def watch() -> None:
    """From now on a signal ends the program at once with exit code 130.

    Where a sweep has something to save, `interruptible` gives it the time.
    """
    _watch.start()
    # Registered first, hence run last: afterwards Python takes the handlers away, and a signal
    # would put its own exit code in the place of a finished sweep's.
    atexit.register(_ignore)


@contextmanager
def watched(*, ends: bool = True) -> Iterator[None]:
    """The same for a block; nothing within another one, or in another thread than the main one.

    Args:
        ends: a second signal ends the process; otherwise it raises KeyboardInterrupt.
    """
    ours = not _watch.working and threading.current_thread() is threading.main_thread()
    if ours:
        _watch.start(ends=ends)
    try:
        yield
    finally:
        if ours:
            _watch.end()


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the first signal sets; the second one ends the program at once.

    Where nobody watches yet, as in a notebook, the program is not ours to end: there the second
    one raises KeyboardInterrupt. Python lets only the main thread have handlers: in another one no
    signal comes unless the program watches already.
    """
    stop = threading.Event()
    with watched(ends=False):
        _watch.open(stop)
        try:
            yield stop
        finally:
            _watch.stops.remove(stop)


def _ignore() -> None:
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _refused(number: signal.Signals) -> bool:
    """Whether we were started so as to outlive the terminal, as by nohup."""
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def _nothing(number: int, frame: FrameType | None) -> None:
    """Stand in for the handler without which the thread would not be woken."""


def _terminal() -> str | None:
    """The device that standard error is shown on, if any."""
    with suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            return os.ttyname(2)
    return None


def _end(terminal: str | None) -> None:
    if terminal is not None:
        with suppress(OSError):
            # A live display hides the cursor. Not through the stream, which may be locked.
            device = os.open(terminal, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            os.write(device, b"\x1b[?25h")
    os._exit(EXIT_CODE)
