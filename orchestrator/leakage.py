"""Near-identical audio in two folds: found by fingerprint, warned of or refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from features.clips import Clip
from features.near_duplicates import NearDuplicate
from orchestrator.errors import SHOWN, SpecificationError
from orchestrator.experiment import Experiment, several
from orchestrator.sweep import Sweep
from orchestrator.trials import NearDuplicateRow

TABLE = "tables/near_duplicates.csv"
"""Where all of them are named, in the run directory."""

_log = logging.getLogger(__name__)


def in_two_folds(
    near: Sequence[NearDuplicate], folds: Sequence[int | None]
) -> tuple[NearDuplicateRow, ...]:
    """Those of the near-identical clips that stand in different folds.

    Args:
        near: pairs of clips.
        folds: of each clip; None for a clip without a fold, which leaks nothing.
    """
    rows = []
    for pair in near:
        fold, other_fold = folds[pair.first], folds[pair.second]
        if fold is not None and other_fold is not None and fold != other_fold:
            row = NearDuplicateRow(pair.first, fold, pair.second, other_fold, pair.similarity)
            rows.append(row)
    return tuple(rows)


def guarded(experiment: Experiment, near: Sequence[NearDuplicate]) -> tuple[NearDuplicateRow, ...]:
    """The near-identical clips that an experiment has in two folds.

    `data.near_duplicates: refuse` refuses them like a shared recording, so that
    `data.allow_leakage` lets both pass. Clips that were left out leak nothing.

    Raises:
        SpecificationError: there are some, and they are refused.
    """
    clips, data = experiment.dataset.clips, experiment.sweep.settings.data
    problems = [row.problem for row in experiment.plan.clips]
    folds = [None if p else fold for fold, p in zip(experiment.folds, problems, strict=True)]
    rows = in_two_folds(near, folds)
    if rows and data.near_duplicates == "refuse" and not data.allow_leakage:
        raise SpecificationError(*_faults(experiment.sweep, clips, rows))
    return rows


def warn(clips: Sequence[Clip], rows: Sequence[NearDuplicateRow], table: str = "") -> None:
    """One warning a pair, at most five and how many more there are.

    Args:
        clips: of the dataset.
        rows: the pairs.
        table: the file that names them all; empty where there is none.
    """
    for row in rows[:SHOWN]:
        _log.warning("%s", described(clips, row))
    if len(rows) > SHOWN:
        where = f", named in {table}" if table else ""
        more = several(len(rows) - SHOWN, "pair")
        _log.warning("and %s more of near-identical clips in two folds%s", more, where)


def described(clips: Sequence[Clip], row: NearDuplicateRow) -> str:
    """A pair in words."""
    pair = [(row.clip, row.fold), (row.other, row.other_fold)]
    named = " and ".join(f"{clips[i].path} (fold {fold})" for i, fold in pair)
    return f"near-identical clips in two folds: {named}, similarity {row.similarity:.2f}"


def _faults(sweep: Sweep, clips: Sequence[Clip], rows: Sequence[NearDuplicateRow]) -> list[str]:
    key = ("data", "near_duplicates")
    place = f"{sweep.source.place(key)}: {'.'.join(key)}"
    allowed = "each recording in one fold (or data.near_duplicates: warn)"
    return [f"{place}: found {described(clips, row)}; allowed {allowed}" for row in rows]
