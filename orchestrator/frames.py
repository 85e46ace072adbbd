"""Data frames: the tables of a run directory, and a plan, as pandas has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.atomic import reason
from orchestrator.csv_files import LEAKAGE
from orchestrator.errors import RunDirectoryError
from orchestrator.records import Status
from orchestrator.trials import Plan, Value

_WHOLE = {
    *("test_fold", "fold", "seed", "epoch", "parameters", "folds_finished", "attempts", "clips"),
    *("total", "trainable", "non_trainable"),
}
"""Columns of whole numbers, which may have empty cells."""

_CATEGORIES = {"status", "split", "configuration"}
_TEXT = {
    *("trial", "clip", "label", "predicted", "error", "host", "device", "problem", "model"),
    *("Metric", "Hyperparameter", "Value"),
}

# Before 3.1 the last bit of a float was right only for those who asked for it.
_OLD = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD else {}


def read_table(path: Path, plan: Plan) -> pd.DataFrame:
    """A table of a run directory.

    Whole numbers are `Int64`, also where cells are empty, other numbers `float64` to the last
    bit, `status`, `split` and `configuration` categories in plan order, `started` a time in UTC;
    the columns of varying keys hold the plan's own values.

    Args:
        path: of the CSV file.
        plan: of the run directory.

    Raises:
        RunDirectoryError: it is not there, or not readable.
    """
    try:
        # Nothing but an empty cell is missing: a class may be called `NA`.
        header = pd.read_csv(path, nrows=0).columns
        frame = pd.read_csv(
            path,
            dtype=_dtypes(header),
            keep_default_na=False,
            na_values=[""],
            **_EXACT,
            parse_dates=[name for name in header if name == "started"],
        )
    except FileNotFoundError:
        makes = f"foldgrid report {path.parents[1]}"
        raise RunDirectoryError(f"{path}: no such table ({makes} makes them anew)") from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error).splitlines()[0]
        raise RunDirectoryError(f"{path}: cannot read: {why}") from error
    return _with_values(frame, plan)


def plan_frame(plan: Plan) -> pd.DataFrame:
    """One row a trial in plan order: the first columns of `trials.csv`."""
    trials = plan.trials
    frame = pd.DataFrame(
        {
            "trial": pd.Series([t.id for t in trials], dtype=str),
            "configuration": pd.Categorical([t.configuration.id for t in trials], _ids(plan)),
            "test_fold": pd.array([t.test_fold for t in trials], dtype="Int64"),
            "fold": pd.array([t.fold for t in trials], dtype="Int64"),
            "seed": pd.array([t.seed for t in trials], dtype="Int64"),
        }
    )
    for path in plan.varying:
        frame[path] = _typed([t.configuration.parameters.get(path) for t in trials])
    return frame


def _ids(plan: Plan) -> list[str]:
    return [configuration.id for configuration in plan.configurations]


def _dtypes(columns: Iterable[str]) -> dict[str, Any]:
    """How columns are read; pandas decides for those that are not named."""
    dtypes: dict[str, Any] = {}
    for column in columns:
        if column in _WHOLE or column.startswith("rank_"):
            dtypes[column] = "Int64"
        elif column in _TEXT or column in _CATEGORIES:
            dtypes[column] = str
        elif column == LEAKAGE:
            dtypes[column] = "boolean"
    return dtypes


def _with_values(frame: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The frame with its varying keys as the plan has them, and its categories in plan order."""
    if "configuration" in frame:
        parameters = {c.id: c.parameters for c in plan.configurations}
        of_rows = [parameters.get(name, {}) for name in frame["configuration"]]
        for path in plan.varying:
            for column in {path, f"param_{path}"} & set(frame.columns):
                frame[column] = _typed([row.get(path) for row in of_rows])
        frame["configuration"] = pd.Categorical(frame["configuration"], _ids(plan))
    for column, categories in (("status", [*Status]), ("split", ["val", "test"])):
        if column in frame:
            frame[column] = pd.Categorical(frame[column], [str(name) for name in categories])
    return frame


def _typed(values: Sequence[Value | None]) -> pd.Series:
    """A column of the narrowest type that holds every value as it is; None is missing."""
    kinds = {type(value) for value in values if value is not None}
    for dtype, fits in (("boolean", {bool}), ("Int64", {int}), ("float64", {int, float})):
        if kinds and kinds <= fits:
            return pd.Series(values, dtype=dtype)
    return pd.Series(values, dtype=str if kinds == {str} and None not in values else object)
