"""Guard: ends this process when a piece of work in it takes too long, whatever it is doing.

A helper process waits for the deadline and sends SIGKILL. Nothing inside a process can be relied
upon: a hanging call into C may hold the interpreter's lock, and a stopped process runs no thread.
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

_WATCH = """
import os, select, signal, sys, time
end = None
while True:
    wait = None if end is None else max(0.0, end - time.monotonic())
    if select.select([0], [], [], wait)[0]:
        words = os.read(0, 65536).decode().split("\\n")
        if words == [""]:
            break
        end = time.monotonic() + float(words[-2]) if words[-2] else None
    else:
        if os.getppid() == int(sys.argv[1]):
            os.kill(int(sys.argv[1]), signal.SIGKILL)
        break
"""


class Guard:
    """A deadline for this process; the helper starts with the first one and ends with us."""

    def __init__(self) -> None:
        self._helper: subprocess.Popen[str] | None = None
        self._stacks: TextIO | None = None

    def arm(self, seconds: float, stacks: Path) -> None:
        """End this process after so many seconds, in place of an earlier deadline.

        Args:
            seconds: from now on.
            stacks: file that is told shortly before what every thread is doing, if it can be.
        """
        if self._helper is None or self._helper.poll() is not None:
            self._helper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCH, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        self._say(repr(seconds))
        self._close()
        # On another machine than the driver's there is no such folder.
        with suppress(OSError):
            self._stacks = stacks.open("w", encoding="utf-8")
            faulthandler.dump_traceback_later(0.95 * seconds, file=self._stacks)

    def disarm(self) -> None:
        """Lift the deadline, if there is one."""
        if self._helper is not None:
            # A helper that somebody killed ends nobody.
            with suppress(OSError):
                self._say("")
            self._close()

    def _close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._stacks is not None:
            self._stacks.close()
            self._stacks = None

    def _say(self, word: str) -> None:
        assert self._helper is not None
        assert self._helper.stdin is not None
        self._helper.stdin.write(f"{word}\n")
        self._helper.stdin.flush()
