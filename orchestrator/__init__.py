"""Experiments: specification, plan, execution, run directory and tables."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.exported_folder import load_model

_HOME = {"load_model": "exported_folder"}
"""The module of each public name, imported when the name is first used (PEP 562)."""

__all__ = ["load_model"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
