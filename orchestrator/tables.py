"""The summarizer: every CSV table of a run directory, made from the run directory alone.

Equal records give equal bytes, in whatever order the trials have finished; only `timings.csv`
says when and where they ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from features.formulas import harmless
from orchestrator import outer_results, run_summaries
from orchestrator.about import write_about
from orchestrator.comparison_table import write_comparisons
from orchestrator.comparisons import Comparisons, compare
from orchestrator.configuration_scores import (
    Best,
    ConfigurationScores,
    best_configuration,
    configuration_scores,
    ranks,
)
from orchestrator.csv_files import LEAKAGE, Cell, TableFolder
from orchestrator.errors import InterruptionError
from orchestrator.outcomes import Entry, Outcome, Results, plan_of, read_entries
from orchestrator.outer_results import write_outer_results
from orchestrator.records import Status
from orchestrator.right_answers import RightAnswers
from orchestrator.run_directory import RunDirectory
from orchestrator.run_sets import repeated, twice_validated
from orchestrator.selection_rules import (
    ConfigurationRules,
    EpochCollection,
    selection_rules,
    write_selection_rules,
)
from orchestrator.trial_tables import HYPERPARAMETERS, hyperparameters, write_trial_tables
from orchestrator.trials import Plan, Trial, file_name

RANKED = ("val_accuracy", "test_accuracy", "val_f1", "val_loss")
"""Metrics of `configurations.csv`; another `search.metric` follows them."""

STALE = (
    run_summaries.PATTERN,
    run_summaries.INDEX,
    "best_hyperparameters_*.csv",
    "skipped_clips.csv",
    outer_results.NAME,
    "near_duplicates.csv",
)
"""Tables that one state of a run directory has and another has not."""


@dataclass(frozen=True)
class Tables:
    """The tables of a run directory.

    Attributes:
        files: that were written, in order.
        results: what they were made from; plots and report need no pass of their own.
        comparisons: of every configuration with the best.
        rules: the best configuration by every selection rule; None while there is no best.
    """

    files: tuple[Path, ...]
    results: Results
    comparisons: Comparisons
    rules: ConfigurationRules | None


def write_tables(run_dir: Path, stop: Callable[[], bool] = lambda: False) -> Tables:
    """Write every table under `run_dir/tables`, each in one step; old ones that are stale go.

    Works on a finished run directory and on one whose sweep is running or was killed. Every
    record is read once.

    Args:
        run_dir: the run directory.
        stop: asked before each record is read; once it says so the tables stay as they were.

    Raises:
        InterruptionError: it was stopped.
        RunDirectoryError: there is no plan, a file is of another format version, or a table
            cannot be written.
    """
    directory = RunDirectory(run_dir)
    plan = plan_of(directory)
    folder = TableFolder(directory.tables, plan.leakage_allowed)
    folder.make()
    answers, epochs = RightAnswers(plan), EpochCollection()
    entries = _noted(_until(stop, read_entries(directory, plan)), answers.note, epochs.note)
    outcomes = write_trial_tables(folder, plan, entries)
    results = Results(directory, plan, outcomes)
    _write_configurations(folder, plan, outcomes)
    run_summaries.write_run_summaries(folder, plan, outcomes)
    _write_best(folder, plan, outcomes)
    _write_parameters(folder, plan, outcomes)
    _write_skipped_clips(folder, plan)
    write_outer_results(folder, plan, outcomes)
    _write_near_duplicates(folder, plan)
    comparisons = compare(plan, results.values(plan.metric), answers)
    write_comparisons(folder, comparisons)
    rules = selection_rules(plan, epochs.by_trial)
    write_selection_rules(folder, plan, rules)
    write_about(folder, plan, answers.split)
    folder.remove_stale(*STALE)
    best = comparisons.best
    of_best = next((r for r in rules if best and r.configuration.id == best.configuration.id), None)
    return Tables(tuple(folder.written), results, comparisons, of_best)


def best_of(results: Results) -> Best | None:
    """The best configuration of a run directory; None while none has every fold finished."""
    return best_configuration(results.plan, results.values(results.plan.metric))


def _until(stop: Callable[[], bool], entries: Iterator[Entry]) -> Iterator[Entry]:
    for entry in entries:
        if stop():
            raise InterruptionError("interrupted while tables were written")
        yield entry


def _noted(entries: Iterator[Entry], *notes: Callable[[Entry], None]) -> Iterator[Entry]:
    for entry in entries:
        for note in notes:
            note(entry)
        yield entry


def _values(outcomes: Mapping[str, Outcome], metric: str) -> dict[str, float | None]:
    return {
        trial: outcome.metric(metric)
        for trial, outcome in outcomes.items()
        if outcome.status is Status.FINISHED
    }


def _write_configurations(folder: TableFolder, plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    """One row a configuration, columns as in scikit-learn's `cv_results_`."""
    metrics = RANKED if plan.metric in RANKED else (*RANKED, plan.metric)
    splits = _splits(plan)
    header = ["configuration", *(f"param_{path}" for path in plan.varying)]
    columns: list[list[list[Cell]]] = []
    for metric in metrics:
        header += [f"{label}_{metric}" for label in splits.values()]
        header += [f"mean_{metric}", f"std_{metric}", f"rank_{metric}"]
        columns.append(_metric_columns(plan, metric, _values(outcomes, metric), list(splits)))
    finished = _folds_finished(plan, outcomes)
    with folder.open("configurations.csv", [*header, "folds_finished"]) as table:
        for i, configuration in enumerate(plan.configurations):
            settings = [configuration.parameters.get(path) for path in plan.varying]
            scores = [cell for of_metric in columns for cell in of_metric[i]]
            table.row([configuration.id, *settings, *scores, finished[configuration.id]])


_Split = tuple[int | None, int | None, int]


def _split(trial: Trial) -> _Split:
    return trial.test_fold, trial.fold, trial.seed


def _splits(plan: Plan) -> dict[_Split, str]:
    """Name of each fold's (and seed's) columns, in plan order."""
    twice, seeds = twice_validated(plan.trials), repeated(plan)
    return {
        _split(t): f"split{t.fold}"
        + (f"_test{t.test_fold or 0}" if t.fold in twice else "")
        + (f"_seed{t.seed}" if seeds else "")
        for t in plan.trials
    }


def _metric_columns(
    plan: Plan, metric: str, values: Mapping[str, float | None], splits: list[_Split]
) -> list[list[Cell]]:
    """For each configuration: the value of each split, mean, standard deviation and rank."""
    mode = "min" if metric.endswith("_loss") else "max"
    scores = configuration_scores(plan, values)
    # A specification may turn the metric it ranks by around; rank 1 is what it calls best.
    places = ranks(scores, plan.mode if metric == plan.metric else mode)
    return [
        [*_by_split(one, splits), one.mean, one.std, rank]
        for one, rank in zip(scores, places, strict=True)
    ]


def _by_split(scores: ConfigurationScores, splits: list[_Split]) -> list[float | None]:
    found = {_split(fold.trial): fold.value for fold in scores.folds}
    return [found.get(split) for split in splits]


def _folds_finished(plan: Plan, outcomes: Mapping[str, Outcome]) -> dict[str, int]:
    """Number of folds of each configuration that have finished with every seed."""
    done: dict[str, dict[tuple[int | None, int | None], bool]] = {}
    for trial in plan.trials:
        folds = done.setdefault(trial.configuration.id, {})
        key = (trial.test_fold, trial.fold)
        finished = outcomes[trial.id].status is Status.FINISHED
        folds[key] = folds.get(key, True) and finished
    return {configuration: sum(folds.values()) for configuration, folds in done.items()}


def _write_best(folder: TableFolder, plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    """The best configuration of all, and of each model where there are several."""
    values = _values(outcomes, plan.metric)
    _write_hyperparameters(
        folder, plan, "best_hyperparameters.csv", best_configuration(plan, values)
    )
    models = dict.fromkeys(c.model.name for c in plan.configurations)
    for model in models if len(models) > 1 else ():
        best = best_configuration(plan, values, model)
        _write_hyperparameters(folder, plan, f"best_hyperparameters_{file_name(model)}.csv", best)


def _write_hyperparameters(folder: TableFolder, plan: Plan, name: str, best: Best | None) -> None:
    rows: list[tuple[str, Cell]] = []
    if best is not None:
        parameters = best.configuration.parameters
        rows += [(path, parameters.get(path)) for path in plan.varying]
        rows += zip(HYPERPARAMETERS, hyperparameters(best.configuration), strict=True)
    if plan.leakage_allowed:
        rows.append((LEAKAGE, True))
    # The leak is a row here: the columns are two.
    with folder.open(name, ["Hyperparameter", "Value"], last_column=False) as table:
        for row in rows:
            table.row(row)


def _write_parameters(folder: TableFolder, plan: Plan, outcomes: Mapping[str, Outcome]) -> None:
    """Each model's parameter counts as its finished trials found them."""

    def rows() -> Iterator[tuple[str, int, int, int]]:
        for trial in plan.every:
            count = outcomes[trial.id].parameters
            if count is not None:
                name = trial.configuration.model.name
                yield name, count.total, count.trainable, count.non_trainable

    header = ["model", "total", "trainable", "non_trainable"]
    folder.write("parameters.csv", header, dict.fromkeys(rows()))


def _write_skipped_clips(folder: TableFolder, plan: Plan) -> None:
    """The clips that were left out, where there are any."""
    skipped = [clip for clip in plan.clips if clip.problem]
    if skipped:
        rows = ((clip.path, plan.classes[clip.label], harmless(clip.problem)) for clip in skipped)
        folder.write("skipped_clips.csv", ["clip", "label", "problem"], rows)


def _write_near_duplicates(folder: TableFolder, plan: Plan) -> None:
    """The near-identical clips in two folds, where there are any."""
    if plan.near_duplicates:
        header = ["clip", "fold", "other_clip", "other_fold", "similarity"]
        rows = (
            (plan.clips[n.clip].path, n.fold, plan.clips[n.other].path, n.other_fold, n.similarity)
            for n in plan.near_duplicates
        )
        folder.write("near_duplicates.csv", header, rows)
