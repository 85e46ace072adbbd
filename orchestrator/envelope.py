"""The envelope around JSON in a run directory: its format version and a checksum."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from orchestrator import atomic
from orchestrator.errors import RunDirectoryError
from orchestrator.specification import FORMAT_VERSION


class DamagedFileError(ValueError):
    """A file is not what was once written: cut off, changed, or something else altogether."""


_HEAD = re.compile(rb'\{"format_version": \d+, "checksum": "([0-9a-f]{64})", ')


def write(path: Path, fields: dict[str, Any], *, canonical: bool = False) -> None:
    """Write fields with their format version and checksum, atomically and durably.

    Args:
        path: the file.
        fields: at least one.
        canonical: write them as the checksum takes them, keys sorted, which is read in a third of
            the time; not for mappings whose order says something.

    Raises:
        RunDirectoryError: the file cannot be written.
        ValueError: NaN or infinity among the values.
    """
    text = _canonical(fields)
    head = json.dumps({"format_version": FORMAT_VERSION, "checksum": _hash(text.encode())})
    body = text if canonical else json.dumps(fields)
    atomic.write_text(path, f"{head[:-1]}, {body[1:]}\n")


def read(path: Path) -> dict[str, Any] | None:
    """The fields that `write` was given, or None where there is no file.

    The version is looked at before anything else, so that an older program names it and does not
    speak of damage.

    Raises:
        DamagedFileError: no JSON, or not the content that was written.
        RunDirectoryError: of another format version, or not readable.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot read: {atomic.reason(error)}") from error
    try:
        data = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DamagedFileError(f"no JSON: {detail}") from error
    if not isinstance(data, dict) or "format_version" not in data:
        raise DamagedFileError("no format_version")
    version = data.pop("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise RunDirectoryError(
            f"{path}: format_version: found {json.dumps(version)}; allowed {FORMAT_VERSION}"
            " (written by another version of foldgrid)"
        )
    # Making the canonical text anew takes longer than all the rest.
    checksum = data.pop("checksum", None)
    if not _stands_as_hashed(content) and checksum != _hash(_canonical(data).encode()):
        raise DamagedFileError("the checksum does not match")
    return data


def _stands_as_hashed(content: bytes) -> bool:
    """Whether a file holds its fields in the canonical text, and the checksum is of this text."""
    head = _HEAD.match(content)
    if head is None or not content.endswith(b"}\n"):
        return False
    return _hash(b"{", memoryview(content)[head.end() : -1]) == head[1].decode()


def _canonical(fields: dict[str, Any]) -> str:
    """JSON with keys sorted, no blanks, floats as Python writes them."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _hash(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
