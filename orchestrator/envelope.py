"""The envelope around JSON in a run directory: its format version and a checksum."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from orchestrator import atomic
from orchestrator.errors import RunDirectoryError
from orchestrator.specification import FORMAT_VERSION


class DamagedFileError(ValueError):
    """A file is not what was once written: cut off, changed, or something else altogether."""


def write(path: Path, fields: dict[str, Any]) -> None:
    """Write fields with their format version and checksum, atomically and durably.

    Raises:
        RunDirectoryError: the file cannot be written.
        ValueError: NaN or infinity among the values.
    """
    head = {"format_version": FORMAT_VERSION, "checksum": _checksum(fields)}
    atomic.write_json(path, head | fields)


def read(path: Path) -> dict[str, Any] | None:
    """The fields that `write` was given, or None where there is no file.

    The version is looked at before anything else, so that an older program names it and does not
    speak of damage.

    Raises:
        DamagedFileError: no JSON, or not the content that was written.
        RunDirectoryError: of another format version, or not readable.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot read: {atomic.reason(error)}") from error
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
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
    if data.pop("checksum", None) != _checksum(data):
        raise DamagedFileError("the checksum does not match")
    return data


def _checksum(fields: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON: keys sorted, no blanks, floats as Python writes them."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
