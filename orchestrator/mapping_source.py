"""A specification that is no file but a mapping, as a notebook has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from orchestrator.errors import Fault, SpecificationError
from orchestrator.yaml_source import MOST_BITS, MOST_DEPTH, KeyPath, YamlSource

NAME = "specification"
"""What stands in messages in the place of file and line."""


def from_mapping(data: Mapping[str, Any]) -> YamlSource:
    """The mapping as if it had been read from a file; it is copied, and stays as it is.

    Beside what YAML has, tuples and arrays may stand for lists, paths for their text and numpy's
    numbers for Python's.

    Raises:
        SpecificationError: it holds what YAML has not.
    """
    source = YamlSource(NAME, {})
    faults: list[Fault] = []
    source.data = {} | _plain(data, (), source, faults)
    if faults:
        raise SpecificationError(*(str(fault) for fault in faults))
    return source


def _plain(value: Any, path: KeyPath, source: YamlSource, faults: list[Fault]) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):
        # An array or a number of numpy, without importing it for those who use none.
        value = value.tolist()
    if len(path) > MOST_DEPTH:
        faults.append(source.fault(path[:3], "too deep nesting", f"{MOST_DEPTH} levels"))
    elif isinstance(value, Mapping):
        names = {key: child for key, child in value.items() if isinstance(key, str)}
        for key in value.keys() - names.keys():
            faults.append(source.fault(path, f"key {key!r}", "names as keys"))
        return {k: _plain(v, (*path, k), source, faults) for k, v in names.items()}
    elif isinstance(value, list | tuple):
        return [_plain(v, (*path, i), source, faults) for i, v in enumerate(value)]
    elif isinstance(value, int) and value.bit_length() > MOST_BITS:
        faults.append(source.fault(path, "a larger one", f"a whole number below 2^{MOST_BITS}"))
    elif value is None or isinstance(value, str | int | float):
        return value
    else:
        allowed = "text, numbers, true, false, null, lists and mappings of them"
        faults.append(source.fault(path, f"a {type(value).__name__}", allowed))
    return None
