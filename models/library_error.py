"""What a library that models come from lacks or refuses, and what it raises, in one line."""

from __future__ import annotations


class LibraryError(ValueError):
    """A library has no such classifier, or refuses its parameters.

    Attributes:
        key: which key of the model's section is at fault.
        found: what stands there.
        allowed: what may stand there.
        near: the nearest that may; empty where none is near.
    """

    def __init__(self, key: tuple[str, ...], found: str, allowed: str, near: str = "") -> None:
        super().__init__(f"{'.'.join(key)}: found {found}; allowed {allowed}")
        self.key, self.found, self.allowed, self.near = key, found, allowed, near


def error_line(error: BaseException) -> str:
    """`ExceptionType: first line` of an exception."""
    line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
