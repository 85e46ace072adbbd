r"""Text that a spreadsheet would run as a formula when it opens a CSV.

Names of clips and classes, and values of parameters, stand in the tables as they are: what reads
as a formula is refused before anything starts. Free text, such as an error message, gets an
apostrophe before it, by which a spreadsheet takes it for text.

After OWASP, "CSV Injection": a cell that begins with `=`, `+`, `-`, `@`, a tab or a line end. A
sign before letters and digits alone can call nothing, and names that begin so are common
(`-0Gd3xZ7a1Q.wav`, a label `-1`): those are let pass.
"""

from __future__ import annotations

import re

_FORMULA = re.compile(r"[=@\t\r\n＝＠]|[-+－＋](?![\w.,/ -]*\Z)")

ALLOWED = "names that do not begin as a formula does, with =, @, + or - (rename it)"
"""For messages."""


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may run a cell with this text.

    >>> [is_formula(t) for t in ("=1+1", "@SUM(A1)", "-1+cmd|' /C calc'!A0", "-1", "-take 2.wav")]
    [True, True, True, False, False]
    """
    return _FORMULA.match(text) is not None


def harmless(text: str) -> str:
    """Free text as it can stand in a cell.

    >>> harmless("=1+1: no such file"), harmless("no such file")
    ("'=1+1: no such file", 'no such file')
    """
    return f"'{text}" if is_formula(text) else text
