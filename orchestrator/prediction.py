"""Prediction: what `foldgrid predict` answers for audio files, as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from features.formulas import ALLOWED, is_formula
from orchestrator.csv_files import CsvWriter
from orchestrator.errors import FoldgridError

if TYPE_CHECKING:
    from orchestrator.classifier import Classifier, Prediction


def refuse_clips(clips: Sequence[Path]) -> None:
    """Raise FoldgridError for what is no file, or would be a formula in the table."""
    faults = [f"{clip}: no such file" for clip in clips if not clip.is_file()]
    faults += [
        f"{clip}: a formula to spreadsheets; allowed {ALLOWED}"
        for clip in clips
        if is_formula(str(clip))
    ]
    if faults:
        raise FoldgridError(*faults)


def write_predictions(stream: TextIO, classifier: Classifier, rows: Sequence[Prediction]) -> None:
    """Write a table with a row a file, and one a window where a file has several."""
    table = CsvWriter(stream)
    probabilities = (f"prob_{name}" for name in classifier.classes)
    table.row(["clip", "start", "end", "predicted", *probabilities])
    for row in rows:
        table.row([row.clip, row.start, row.end, row.predicted, *row.probabilities.values()])
