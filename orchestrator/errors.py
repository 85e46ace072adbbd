"""Errors that a user can mend: one line a fault, shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHOWN = 5
"""Faults printed before `and N more`."""

_LONGEST = 1000
"""Characters of a line; its middle is left out beyond."""


class FoldgridError(Exception):
    """Something a user can mend before anything starts; ends the program with exit code 2.

    Attributes:
        faults: one line each.
    """

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults

    def lines(self) -> list[str]:
        """At most five faults and how many more there are, each on one line."""
        shown = [_cut(printable(" ".join(str(fault).split()))) for fault in self.faults[:SHOWN]]
        rest = len(self.faults) - SHOWN
        return [*shown, f"and {rest} more"] if rest > 0 else shown


class SpecificationError(FoldgridError):
    """The specification cannot be run as it is written."""


class RunDirectoryError(FoldgridError):
    """The run directory is locked, not writable, or of another specification."""


class DamagedPlanError(RunDirectoryError):
    """The plan of a run directory is not what was once written."""


class ClusterError(FoldgridError):
    """Ray or its cluster cannot be used, or lacks what a trial needs."""


class LostError(FoldgridError):
    """The disk, the cache or the cluster was lost after the start; what was written stays."""

    exit_code = 1


class TrainingError(FoldgridError):
    """A training that was asked for by itself came to no end."""

    exit_code = 1


class InterruptionError(FoldgridError):
    """A signal came before there was anything to save; the same command goes on."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of a specification.

    Attributes:
        place: `FILE:LINE`, or the option that brought the value.
        path: dotted path of the key; empty where no key is meant.
        found: what stands there.
        allowed: what may stand there.
        near: the nearest allowed name, or empty.
    """

    place: str
    path: str
    found: str
    allowed: str
    near: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: {self.path}" if self.path else self.place
        hint = f" (did you mean {self.near}?)" if self.near else ""
        return f"{where}: found {self.found}; allowed {self.allowed}{hint}"


def printable(text: str) -> str:
    r"""Text for one line of a terminal: control characters, which could act on it, are escaped.

    >>> printable("a" + chr(10) + "b" + chr(27) + "[2J")
    'a\\nb\\x1b[2J'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _cut(line: str) -> str:
    if len(line) <= _LONGEST:
        return line
    half = _LONGEST // 2
    return f"{line[:half]} ... {line[-half:]}"


def nearest(name: object, allowed: Iterable[str]) -> str:
    """The allowed name most like the one found; empty where none is near."""
    matches = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return matches[0] if matches else ""


def listing(names: Sequence[object]) -> str:
    """Names as they stand in a message: `a, b, c`."""
    return ", ".join(str(name) for name in names)


def shown(value: object) -> str:
    """A value as it stands in a message: YAML's spelling, long ones cut."""
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = repr(value)
    elif isinstance(value, dict):
        text = "a mapping" if value else "an empty mapping"
    elif isinstance(value, list):
        text = "[" + ", ".join(shown(v) for v in value) + "]"
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
