"""Manifests as no program writes them: quotes, columns, encodings and paths gone wrong."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable

CELLS = [
    *("", " ", "\0", "\t", "\n", "\r", "\r\n", '"', '""', "'", ",", "a,b", "a\nb", "\x1b[2J"),
    "\u2028",
    *("..", "../x.wav", "../../etc/passwd", "/etc/passwd", "/", ".", "./", "low/", "low"),
    "low/../low",
    *("low/0.wav", "./low/0.wav", "low//0.wav", "low\\0.wav", "LOW/0.WAV", "low/0.wav "),
    " low/0.wav",
    *("link/0.wav", "loop/loop/loop/0.wav", "pipe", "null", "outside.wav", "secret.wav", "x" * 300),
    *("y/" * 3000, "z" * 5000, "w" * 1_000_000, "low/0.wav\0", "%2e%2e/x", "file:///etc/passwd"),
    "~/x",
    *("${HOME}/x", "=1+1", "+1", "-1", "@x", "=cmd|' /C calc'!A0", "<script>", "{{ 1 }}", "$x$"),
    "💥",
    *("e\u0301", "\u202e", "nan", "1.0", "1e3", "01", "-0", "99999999999999", "9" * 5000, "١"),
    *("²", "0x1"),
    *("true", "null", "1 ", " 1", "1,", "999999999", "1000000000"),
]
_HEADERS = [
    *("path", "label", "path,label,fold,source,path", "label,path,source,fold", "Path,Label"),
    *("", ","),
    *("path;label;fold;source", "path\tlabel\tfold\tsource", "path,label,fold,source,extra"),
    "a,b,c,d",
    *(" path , label ,fold,source", '"path","label","fold","source"', '"path,label', "\0"),
    "path,,,",
    *("path,label,fold,source,,", "path,label,folds,source", "\ufeffpath,label,fold,source"),
]

Rows = list[list[str]]


def _cell(rng: random.Random, rows: Rows) -> None:
    row = rng.choice(rows[1:] or rows)
    row[rng.randrange(len(row))] = rng.choice(CELLS)


def _row(rng: random.Random, rows: Rows) -> None:
    kind, i = rng.randrange(6), rng.randrange(len(rows))
    if kind == 0:
        rows.insert(rng.randrange(len(rows)), list(rows[i]))
    elif kind == 1:
        del rows[i]
    elif kind == 2:
        rows[i] = rows[i][: rng.randrange(len(rows[i]) + 1)]
    elif kind == 3:
        rows[i] = rows[i] + [rng.choice(CELLS)] * rng.choice([1, 1, 5000])
    elif kind == 4:
        rng.shuffle(rows)
    else:
        rows.insert(i, [])


def _column(rng: random.Random, rows: Rows) -> None:
    column, value = rng.randrange(4), rng.choice([*CELLS[:-30], "1", "low"])
    if len(value) > 1000:
        return
    for row in rows[1:]:
        if column < len(row):
            row[column] = value


def _many(rng: random.Random, rows: Rows) -> None:
    rows.extend([["low/0.wav", "low", "1", ""]] * rng.choice([10, 3000]))


_ROWS: list[Callable[[random.Random, Rows], None]] = [
    _cell,
    _cell,
    _cell,
    _row,
    _row,
    _column,
    _many,
]


def _as_text(rng: random.Random, rows: Rows) -> str:
    stream = io.StringIO(newline="")
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    end = rng.choice(["\n", "\n", "\r\n", "\r", "\n\n"])
    csv.writer(stream, quoting=quoting, lineterminator=end).writerows(rows)
    return stream.getvalue()


def _damaged(rng: random.Random, content: bytes) -> bytes:
    kind, place = rng.randrange(6), rng.randrange(len(content) + 1)
    if kind == 0:
        return content[:place]
    if kind == 1:
        inserts = [
            *(b"\0", b'"', b"'", b",", b"\n", b"\r", b"\xff", b"\xef\xbb\xbf", b"\\", b";"),
            b"\x1a",
        ]
        return content[:place] + rng.choice(inserts) + content[place:]
    if kind == 2:
        return content.replace(b'"', b"")
    if kind == 3:
        coding = rng.choice(["utf-16", "utf-16-be", "utf-32", "cp1252", "utf-8-sig", "cp037"])
        return content.decode("utf-8", "replace").encode(coding, "replace")
    if kind == 4:
        return content.replace(b"\n", rng.choice([b"\r", b"\0", b"\xe2\x80\xa8", b"", b"\n\n\n"]))
    return rng.choice(
        [b"", b"\0", b"\n", b"\xff\xfe", b'"', b"path,label", b"{}", b"RIFF", b"PK\x03\x04"]
    )


def manifest(seed: int, number: int, rows: Rows) -> bytes:
    """The mutated manifest with a number, made from sound rows with a header."""
    rng = random.Random(f"{seed}/manifest/{number}")
    rows = [list(row) for row in rows]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        rng.choice(_ROWS)(rng, rows)
        rows = [row for row in rows if row] or [["path", "label", "fold", "source"]]
    text = _as_text(rng, rows)
    if rng.random() < 0.25:
        text = rng.choice(_HEADERS) + "\n" + text.partition("\n")[2]
    content = text.encode("utf-8", "surrogatepass")
    return _damaged(rng, content) if rng.random() < 0.35 else content
