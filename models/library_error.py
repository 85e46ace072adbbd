"""LibraryError: what a library that models come from lacks or refuses."""

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
