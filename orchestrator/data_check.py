"""The check of a specification's clips: what `foldgrid data check` prints and writes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.check import CheckedClip, Progress, check
from features.clips import Dataset
from features.formulas import harmless
from features.near_duplicates import near_duplicates
from orchestrator.csv_files import Cell, CsvWriter
from orchestrator.experiment import several
from orchestrator.folds import FoldError, assign_folds, leaks
from orchestrator.leakage import described, in_two_folds
from orchestrator.sweep import Sweep
from orchestrator.trials import NearDuplicateRow

COLUMNS = (
    *("clip", "label", "fold", "source", "format", "extension", "encoding", "seconds"),
    *("sample_rate", "channels", "peak", "usable", "issues", "duplicate_of"),
)

_LISTED = 50
"""Clips named on the screen; the file names them all."""


@dataclass(frozen=True)
class DataCheck:
    """Everything that was found.

    Attributes:
        dataset: the clips.
        folds: of each clip, None where the specification cannot give it one.
        clips: what was found of each.
        leaks: sources and file contents in two folds.
        near_duplicates: near-identical clips in two folds.
        fold_fault: why there are no folds; empty where there are.
        skip: whether a run leaves bad clips out (`data.on_bad_clip`).
        leakage: whether a run lets leaks pass (`data.allow_leakage`).
        near: whether a run lets near-identical clips in two folds pass.
    """

    dataset: Dataset
    folds: tuple[int | None, ...]
    clips: tuple[CheckedClip, ...]
    leaks: tuple[str, ...]
    near_duplicates: tuple[NearDuplicateRow, ...]
    fold_fault: str
    skip: bool
    leakage: bool
    near: bool

    @property
    def bad(self) -> list[CheckedClip]:
        """Clips that `run` refuses."""
        return [found for found in self.clips if found.inspection.problem]

    @property
    def usable(self) -> bool:
        """Whether `run` would take the data as they are."""
        bad, leaks = self.bad and not self.skip, self.leaks and not self.leakage
        near = self.near_duplicates and not self.near
        return not bad and not leaks and not near and not self.fold_fault


def check_data(sweep: Sweep, dataset: Dataset, progress: Progress) -> DataCheck:
    """Look at every clip, and at the folds that a specification gives them."""
    data = sweep.settings.data
    rates = sorted({c.features.sample_rate for c in sweep.configurations})
    clips = check(dataset, rates, progress)
    near_allowed = data.near_duplicates == "warn" or data.allow_leakage
    allowed = (data.on_bad_clip == "skip", data.allow_leakage, near_allowed)
    try:
        folds = assign_folds(dataset, sweep.settings.folds)
    except FoldError as error:
        own = tuple(clip.fold for clip in dataset.clips)
        return DataCheck(dataset, own, clips, (), (), str(error), *allowed)
    marks = {i: c.fingerprint for i, c in enumerate(clips) if c.fingerprint is not None}
    near = in_two_folds(near_duplicates(dataset.clips, marks), folds)
    return DataCheck(dataset, folds, clips, tuple(leaks(dataset, folds)), near, "", *allowed)


def write_csv(found: DataCheck, path: Path) -> None:
    """One row a clip.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    from orchestrator.atomic import replacing

    with replacing(path, durable=False) as stream:
        writer = CsvWriter(stream)
        writer.row(COLUMNS)
        for fold, checked in zip(found.folds, found.clips, strict=True):
            writer.row(_cells(found.dataset, fold, checked))


def _cells(dataset: Dataset, fold: int | None, checked: CheckedClip) -> list[Cell]:
    clip, seen = checked.clip, checked.inspection
    decoded = bool(seen.rate)
    return [
        clip.path,
        dataset.classes[clip.label],
        fold,
        harmless(clip.source),
        seen.format.value if seen.format else "",
        seen.extension,
        seen.encoding,
        seen.seconds if decoded else None,
        seen.rate if decoded else None,
        seen.channels if decoded else None,
        seen.peak if decoded else None,
        not seen.problem,
        harmless("; ".join(checked.issues)),
        checked.duplicate_of,
    ]


def as_lines(found: DataCheck) -> list[str]:
    """The check in words."""
    dataset = found.dataset
    numbers = sorted({fold for fold in found.folds if fold is not None})
    place = f" in {dataset.root}" if dataset.root else ""
    folds = f", {len(numbers)} folds" if numbers else ""
    clips = several(len(found.clips), "clip")
    head = f"{dataset.name}: {clips}, {len(dataset.classes)} classes{folds}{place}"
    return [
        head,
        "",
        *_class_table(found, numbers),
        "",
        *_properties(found.clips),
        "",
        *_findings(found),
        _verdict(found),
    ]


def _class_table(found: DataCheck, numbers: Sequence[int]) -> Iterator[str]:
    """Clips for each class and fold."""
    counts = Counter(
        (checked.clip.label, fold) for fold, checked in zip(found.folds, found.clips, strict=True)
    )
    classes = found.dataset.classes
    rows = [["class", *(f"fold {n}" for n in numbers), "all"]]
    for label, name in enumerate(classes):
        each = [counts[label, n] for n in numbers]
        total = sum(c for (of, _), c in counts.items() if of == label)
        rows.append([name, *map(str, each), str(total)])
    sums = [sum(counts[label, n] for label in range(len(classes))) for n in numbers]
    rows.append(["all", *map(str, sums), str(len(found.clips))])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  ".join(cells)


def _properties(clips: Sequence[CheckedClip]) -> Iterator[str]:
    decoded = [checked.inspection for checked in clips if checked.inspection.rate]
    seconds = sorted(seen.seconds for seen in decoded)
    if seconds:
        low, middle, high = seconds[0], statistics.median(seconds), seconds[-1]
        yield f"seconds:   {low:.3g} to {high:.3g}, median {middle:.3g}"
    yield f"rates:     {_tally(f'{seen.rate} Hz' for seen in decoded)}"
    yield f"channels:  {_tally(str(seen.channels) for seen in decoded)}"
    yield f"formats:   {_tally(_format(checked) for checked in clips)}"


def _format(checked: CheckedClip) -> str:
    seen = checked.inspection
    return " ".join(filter(None, [seen.format or "other", seen.encoding]))


def _tally(values: Iterator[str]) -> str:
    counts = Counter(values).most_common()
    return ", ".join(f"{value} ({count})" for value, count in counts) or "none"


def _findings(found: DataCheck) -> Iterator[str]:
    odd = [checked for checked in found.clips if checked.issues]
    # What stops a run comes first, where a long list would hide it.
    odd.sort(key=lambda checked: not checked.inspection.problem)
    for checked in odd[:_LISTED]:
        mark = "bad " if checked.inspection.problem else "note"
        yield f"{mark}  {checked.clip.path}: {'; '.join(checked.issues)}"
    if len(odd) > _LISTED:
        yield f"      and {len(odd) - _LISTED} more"
    for leak in found.leaks[:_LISTED]:
        yield f"leak  {leak}"
    if len(found.leaks) > _LISTED:
        yield f"      and {len(found.leaks) - _LISTED} more leaks"
    for row in found.near_duplicates[:_LISTED]:
        yield f"near  {described(found.dataset.clips, row)}"
    if len(found.near_duplicates) > _LISTED:
        yield f"      and {len(found.near_duplicates) - _LISTED} more pairs"
    if found.fold_fault:
        yield f"folds  {found.fold_fault}"
    if odd or found.leaks or found.near_duplicates or found.fold_fault:
        yield ""


def _verdict(found: DataCheck) -> str:
    bad = several(len(found.bad), "bad clip")
    leaking = several(len(found.leaks), "leak")
    near = several(len(found.near_duplicates), "near-identical pair")
    if found.usable:
        left_out = f"; {bad} left out (data.on_bad_clip: skip)" if found.bad else ""
        let_pass = f"; {leaking} let pass (data.allow_leakage)" if found.leaks else ""
        warned = f"; {near} in two folds" if found.near_duplicates else ""
        return f"usable as it is{left_out}{let_pass}{warned}"
    reasons = []
    if found.bad and not found.skip:
        reasons.append(bad)
    if found.leaks and not found.leakage:
        reasons.append(leaking)
    if found.near_duplicates and not found.near:
        reasons.append(f"{near} in two folds")
    if found.fold_fault:
        reasons.append("no folds")
    return f"not usable as it is: {', '.join(reasons)}"
