"""Experiments: specification, plan, execution, run directory and tables.

    from orchestrator import load_model, load_spec, plan, run, read_run

`load_spec` reads and checks a specification, `plan` says what it would run, `run` runs it or goes
on with it, and `read_run` opens what a run left on disk, its tables as pandas data frames.
`load_model` loads the winner of a run directory, or of an exported folder, to answer for new
clips. What a user can mend raises a `FoldgridError`, whose message has one line a fault.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.api import load_spec, plan, read_run, run
    from orchestrator.configuration_scores import Best
    from orchestrator.errors import FoldgridError
    from orchestrator.experiment import Experiment
    from orchestrator.exported_folder import load_model
    from orchestrator.runs import Run
    from orchestrator.sweep import Sweep

_HOME = {
    "load_model": "exported_folder",
    "load_spec": "api",
    "plan": "api",
    "run": "api",
    "read_run": "api",
    "Best": "configuration_scores",
    "Experiment": "experiment",
    "FoldgridError": "errors",
    "Run": "runs",
    "Sweep": "sweep",
}
"""The module of each public name, imported when the name is first used (PEP 562)."""


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


__all__ = [
    "Best",
    "Experiment",
    "FoldgridError",
    "Run",
    "Sweep",
    "load_model",
    "load_spec",
    "plan",
    "read_run",
    "run",
]
