"""The head of a cluster: whether anybody answers there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS = 45.0
"""A head may come back for so long; Ray itself ends the process after sixty seconds."""

_EVERY = 2.0


def knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


@contextmanager
def watched(address: str, lost: Callable[[str], None]) -> Iterator[None]:
    """Knock from time to time while the block runs; say so when the head is gone for good."""
    over = threading.Event()

    def watch() -> None:
        answered = time.monotonic()
        while not over.wait(_EVERY):
            try:
                knock(address)
                answered = time.monotonic()
            except OSError as error:
                if time.monotonic() - answered > _SECONDS:
                    lost(f"its head {address} does not answer ({error.strerror or error})")
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
