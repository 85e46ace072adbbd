"""An error in one line that is the same wherever and whenever the trial ran."""

from __future__ import annotations

import re

LONGEST = 300
"""Characters of an error line."""

_QUOTED_PATH = re.compile(r"""(?P<quote>['"])(?:file://)?~?/(?P<path>[^'"\n]*)(?P=quote)""")
_PATH = re.compile(r"""(?<![\w:/.~)\]}<])(?:file://)?~?/(?P<path>[^\s'"`,;:()<>\[\]{}]+)""")
_ADDRESS = re.compile(r"(?:\s+at)?\s*\b0x[0-9a-fA-F]+\b")
_PROCESS = re.compile(r"\b(pid|process(?: id)?)\b\s*[=:]?\s*\d+\b", re.IGNORECASE)


def error_line(error: BaseException) -> str:
    """`ExceptionType: first line` of an exception, made comparable by `plain_line`."""
    try:
        text = str(error).strip()
    except Exception:
        text = ""
    first = text.splitlines()[0] if text else ""
    name = type(error).__name__
    return plain_line(f"{name}: {first}" if first else name)


def plain_line(text: str) -> str:
    """A line without what differs between two equal runs.

    Absolute paths are reduced to their last part; memory addresses and process ids are left
    out; runs of blanks become one; what is longer than `LONGEST` is cut.

    >>> plain_line("no such file: '/home/ann/my data/a.wav' (pid=12), <Net object at 0x7f12>")
    "no such file: 'a.wav' (pid), <Net object>"
    """
    text = _QUOTED_PATH.sub(lambda m: m["quote"] + _last_part(m["path"]) + m["quote"], text)
    text = _PATH.sub(lambda m: _last_part(m["path"]), text)
    text = _PROCESS.sub(r"\1", _ADDRESS.sub("", text))
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
