"""Predictions for the three classes of `clips`: of a run, and as `foldgrid predict` prints them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

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
