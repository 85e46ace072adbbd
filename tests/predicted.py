"""Predictions for the three classes of `clips`: of a run, and as `foldgrid predict` prints them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SERIAL = ("--executor", "serial", "--quiet")
CLASSES = ["low", "noise", "ticks"]
PROBABILITIES = [f"prob_{name}" for name in CLASSES]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def chances(row: dict[str, str]) -> list[float]:
    return [float(row[name]) for name in PROBABILITIES]


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, converters=dict.fromkeys(PROBABILITIES, float))


def predictions(run_dir: Path, split: str) -> pd.DataFrame:
    found = read(run_dir / "tables" / "predictions.csv")
    return found[found.split == split]


def best_of(run_dir: Path) -> str:
    scores = pd.read_csv(run_dir / "tables" / "configurations.csv")
    return str(scores[scores.rank_val_accuracy == 1].configuration.iloc[0])


def check_ensemble(foldgrid: Callable[..., Any], run_dir: Path, clips: Path) -> None:
    """What is predicted for the test fold's clips is the mean over the best's two models."""
    test = predictions(run_dir, "test")
    own = test[test.trial.str.startswith(best_of(run_dir))]
    expected = own.groupby("clip")[PROBABILITIES].mean()
    assert len(own) == 2 * len(expected) == 18
    rows = table(foldgrid("predict", run_dir, *(clips / p for p in expected.index)).out)
    found = np.array([chances(row) for row in rows])
    assert np.allclose(found, expected.to_numpy(), atol=1e-12, rtol=0)
    assert [row["predicted"] for row in rows] == [CLASSES[i] for i in found.argmax(axis=1)]
