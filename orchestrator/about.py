"""about.csv: of every table of a run directory its protocol and what its scores say."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from orchestrator.csv_files import TableFolder
from orchestrator.protocols import score_meaning
from orchestrator.trials import Plan

NAME = "about.csv"

_OF_TRIALS = (
    "each of one trial, at the epoch that train.select names: validation is what epochs and"
    " configurations may be chosen by, test is what no choice sees"
)
_ANSWERS = "none as such: the answers of each trial's model at the epoch that train.select names"
_NONE = "none"

_MEANINGS = {
    "trials.csv": _OF_TRIALS,
    "hyperparameters.csv": _OF_TRIALS,
    "run_summary_*.csv": f"{_OF_TRIALS}; Average Val Acc is a running mean over trials",
    "epochs.csv": (
        "each of one trial after one epoch, of those given up too; test only with"
        " train.test_every_epoch"
    ),
    "predictions.csv": _ANSWERS,
    "confusion_matrices.csv": _ANSWERS,
    "best_hyperparameters*.csv": "none: the parameters of the best mean {metric}",
    "comparisons.csv": (
        "{metric} over folds, on validation; pooled answers are those on {pooled}. {meaning}"
    ),
    "selection_rules.csv": (
        "accuracy by four ways of choosing the epoch; by test_epoch the test score is optimistic,"
        " since it was chosen by it. {meaning}"
    ),
    "near_duplicates.csv": _NONE,
    "nested.csv": (
        "test: of each fold once, by the configuration that the others have chosen; inner: what it"
        " was chosen by"
    ),
    "parameters.csv": _NONE,
    "run_summaries.csv": _NONE,
    "skipped_clips.csv": _NONE,
    "timings.csv": _NONE,
    NAME: _NONE,
}
"""What the scores of a table are; where it has means over folds, what the protocol says of them."""


def write_about(folder: TableFolder, plan: Plan, pooled: str) -> None:
    """Write a row for each table that has been written, and for this one.

    Args:
        folder: of the tables.
        plan: of the run.
        pooled: `val` or `test`, the split whose answers `comparisons.csv` pools.

    Raises:
        RunDirectoryError: it cannot be written.
    """
    tested = any(trial.test_fold is not None for trial in plan.trials)
    words = {
        "metric": plan.metric,
        "pooled": "validation" if pooled == "val" else "test",
        "meaning": score_meaning(plan.protocol, tested),
    }
    names = sorted({path.name for path in folder.written} | {NAME})
    rows = ((name, plan.protocol, _meaning(name).format(**words)) for name in names)
    folder.write(NAME, ("table", "protocol", "score"), rows)


def _meaning(name: str) -> str:
    found: Iterator[str] = (
        words for pattern, words in _MEANINGS.items() if fnmatchcase(name, pattern)
    )
    return next(found, "{meaning}")
