"""The tables of a report: configurations, trials, best hyperparameters, run summaries."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.configuration_scores import (
    Best,
    ConfigurationScores,
    best_configuration,
    configuration_scores,
)
from orchestrator.csv_files import LEAKAGE
from orchestrator.progress import duration
from orchestrator.report_view import Cell, Column, SummaryView, TableView
from orchestrator.run_summaries import RunSummary, file_names
from orchestrator.score_text import MISSING, ScoreText, listed, rounded, value_text
from orchestrator.standing import Standing
from orchestrator.trial_tables import HYPERPARAMETERS
from orchestrator.trials import Configuration, Trial, file_name

MOST_ROWS = 200
"""Rows of a table in the page; the CSV file has all of them."""

MOST_SUMMARIES = 40
"""Run summaries in the page; the CSV files have all of them."""

_BESIDE = ("val_accuracy", "val_f1", "val_loss")
_RUN = ("train_accuracy", "train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss")


def configurations_table(standing: Standing) -> TableView:
    """Every configuration, the best first; of thousands the first ones."""
    plan, metric = standing.plan, standing.metric
    names = list(dict.fromkeys(standing.fold_name(trial) for trial in plan.trials))
    beside = [name for name in _BESIDE if name != plan.metric]
    several = standing.best is not None and len(plan.configurations) > 1
    columns = [
        Column("Rank", numeric=True),
        Column("Mean ± std, %" if metric.in_percent else "Mean ± std", numeric=True),
        *([Column("Behind the best", numeric=True)] if several else []),
        *_columns(standing),
        *(Column(name, numeric=True) for name in names),
        *(Column(f"Mean {ScoreText(name).short}", numeric=True) for name in beside),
        Column("Trials finished", numeric=True),
        Column("Configuration", code=True),
    ]
    means = [_means(standing, name) for name in beside]
    planned: dict[str, int] = {}
    for trial in plan.trials:
        planned[trial.configuration.id] = planned.get(trial.configuration.id, 0) + 1
    rows = []
    for rank, one in standing.ranked[:MOST_ROWS]:
        own = one.configuration.id
        by_name = {standing.fold_name(fold.trial): fold.value for fold in one.folds}
        rows.append(
            (
                number(rank),
                Cell(metric.spread(one.mean, one.std), _key(one.mean)),
                *([_behind(standing, one)] if several else []),
                *_settings(standing, one.configuration),
                *(_score(metric, by_name.get(name)) for name in names),
                *(
                    _score(ScoreText(name), of_all[own])
                    for name, of_all in zip(beside, means, strict=True)
                ),
                Cell(f"{len(one.folds)} of {planned[own]}", str(len(one.folds))),
                Cell(own),
            )
        )
    return TableView(
        caption=f"Configurations by {metric.title}, {_better(plan.mode)}",
        columns=tuple(columns),
        rows=tuple(rows),
        note=_note(len(rows), len(plan.configurations), "configurations.csv"),
        marked=0 if standing.best else None,
        sortable=True,
    )


def _better(mode: str) -> str:
    return "higher is better" if mode == "max" else "lower is better"


def _note(shown: int, total: int, name: str) -> str:
    if shown == total:
        return f"Full precision: tables/{name}."
    return f"The first {shown} of {total:,}; all of them, in full precision: tables/{name}."


def _behind(standing: Standing, one: ConfigurationScores) -> Cell:
    best = standing.best
    if best is None or one.mean is None or not one.rankable:
        return _ABSENT
    distance = abs(best.mean - one.mean)
    return Cell(standing.metric.value(distance), repr(distance))


def _means(standing: Standing, metric: str) -> dict[str, float | None]:
    scores = configuration_scores(standing.plan, standing.source.values(metric))
    return {one.configuration.id: one.mean for one in scores}


def _numeric(standing: Standing, path: str) -> bool:
    found = [c.parameters[path] for c in standing.plan.configurations if path in c.parameters]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)


_ABSENT = Cell(MISSING, "")


def number(value: int | None) -> Cell:
    """A cell of a whole number."""
    return _ABSENT if value is None else Cell(f"{value:,}", str(value))


def _score(metric: ScoreText, value: float | None) -> Cell:
    return Cell(metric.value(value), _key(value))


def _key(value: float | None) -> str:
    return "" if value is None else repr(value)


def trials_table(standing: Standing) -> TableView:
    """The first report's grid table: hyperparameters and run summary of each trial."""
    plan = standing.plan
    runs = _RUN if standing.has_test else tuple(n for n in _RUN if not n.startswith("test_"))
    columns = (
        Column("Fold"),
        *_columns(standing),
        Column("Status"),
        Column("Epoch", numeric=True),
        *(Column(ScoreText(name).column, numeric=True) for name in runs),
        Column("Time", numeric=True),
    )
    shown = standing.source.trials[:MOST_ROWS]
    rows = tuple(
        (
            Cell(standing.fold_name(row.trial)),
            *_settings(standing, row.trial.configuration),
            Cell(row.status.value),
            number(row.epoch),
            *(_score(ScoreText(name), row.metric(name)) for name in runs),
            _time(standing, row.trial),
        )
        for row in shown
    )
    note = _note(len(rows), len(plan.trials), "hyperparameters.csv")
    if standing.has_test:
        note += " Test scores are shown, and nothing is chosen by them."
    caption = "Every trial: hyperparameters and run summary"
    return TableView(caption, columns, rows, note, sortable=True)


def _columns(standing: Standing) -> list[Column]:
    return [Column(p, numeric=_numeric(standing, p), code=True) for p in standing.telling]


def _settings(standing: Standing, configuration: Configuration) -> list[Cell]:
    found = configuration.parameters
    return [Cell(value_text(found[p])) if p in found else _ABSENT for p in standing.telling]


def _time(standing: Standing, trial: Trial) -> Cell:
    time = standing.source.times.get(trial.id)
    return Cell(duration(time.wall_seconds), repr(time.wall_seconds)) if time else _ABSENT


def hyperparameters_table(standing: Standing) -> TableView | None:
    """The best hyperparameters, of all and of each model where there are several."""
    values = standing.source.values(standing.plan.metric)
    several = standing.models if len(standing.models) > 1 else ()
    found = [("Best of all" if several else "Value", standing.best)]
    found += [(name, best_configuration(standing.plan, values, name)) for name in several]
    if standing.best is None:
        return None
    columns = (
        Column("Hyperparameter", code=True),
        *(Column(title, code=True) for title, _ in found),
    )
    bests = [best for _, best in found]
    paths = {path: path for path in standing.plan.varying}
    # An estimator has none of them, and no optimizer has all.
    had = {path for best in bests if best for path in best.configuration.parameters}
    paths |= {n: path for n, path in HYPERPARAMETERS.items() if path in had and path not in paths}
    rows = [(Cell(name), *(_setting(best, path) for best in bests)) for name, path in paths.items()]
    metric = standing.metric
    scores = (Cell(metric.spread(best.mean, best.std) if best else MISSING) for best in bests)
    rows.append((Cell(f"mean ± std {standing.plan.metric}"), *scores))
    endings = ["", *(f"_{file_name(name)}" for name in several)]
    names = [f"best_hyperparameters{ending}.csv" for ending in endings]
    note = f"Also in tables/{listed(names)}."
    return TableView("Of the configurations with every fold finished", columns, tuple(rows), note)


def _setting(best: Best | None, path: str) -> Cell:
    found = best.configuration.parameters if best else {}
    return Cell(value_text(found[path])) if path in found else _ABSENT


def summary_views(standing: Standing) -> tuple[SummaryView, ...]:
    """The run summaries, those of the best configuration open; of many the first ones."""
    summaries = standing.summaries
    best = standing.best.configuration.id if standing.best else ""
    groups: dict[int, list[tuple[RunSummary, str]]] = {}
    for summary, name in zip(summaries, file_names(summaries), strict=True):
        groups.setdefault(id(summary.runs), []).append((summary, name))
    ordered = sorted(groups.values(), key=lambda group: not _has(group[0][0], best))
    views: list[SummaryView] = []
    left = MOST_SUMMARIES
    for group in ordered:
        left -= len(group)
        if views and left < 0:
            break
        tables = [_summary(standing, summary, name) for summary, name in group]
        runs = group[0][0].runs
        settings = [
            f"{path} = {value_text(value)}" for path, value in runs.values if value is not None
        ]
        title = ", ".join([runs.model, *settings])
        shown = len(groups) == 1 or _has(group[0][0], best)
        views.append(SummaryView(title, tuple(t for t in tables if t is not None), shown))
    return tuple(views)


def summaries_note(standing: Standing, views: Sequence[SummaryView]) -> str:
    """How the run summaries are to be read, and which are left out."""
    shown, total = sum(len(v.tables) for v in views), len(standing.summaries)
    note = (
        "One column a run; numbers rounded for reading, the CSV files keep full precision."
        " F1 is the macro average over all clips of the fold as a fraction, losses are means per"
        " clip, training values are running values over the epoch. Average Val Acc is the running"
        " mean of the validation accuracy, fold by fold."
    )
    if shown < total:
        note += f" {shown} of {total:,} tables are shown; all of them: tables/run_summary_*.csv."
    return note


def _has(summary: RunSummary, configuration: str) -> bool:
    return any(trial.configuration.id == configuration for trial in summary.runs.trials)


def _summary(standing: Standing, summary: RunSummary, name: str) -> TableView | None:
    table = standing.source.table(name)
    if table is None:
        return None
    keep = [i for i, title in enumerate(table.header) if title != LEAKAGE]
    columns = tuple(Column(table.header[i], numeric=i > 0) for i in keep)
    rows = tuple(
        tuple(Cell(_summary_cell(row[0], row[i]) if i else row[i]) for i in keep)
        for row in table.rows
        if len(row) == len(table.header) and (standing.has_test or not row[0].startswith("Test"))
    )
    caption = "One column a fold" if summary.fold is None else f"Validation fold {summary.fold}"
    return TableView(caption, columns, rows, f"tables/{name}")


def _summary_cell(row: str, cell: str) -> str:
    if not cell:
        return MISSING
    if row == "Epoch":
        return cell
    return rounded(float(cell), 2 if row.endswith("(%)") else 3)
