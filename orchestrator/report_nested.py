"""A report's words on a nested cross-validation: what each test fold was answered by, and how."""

from __future__ import annotations

from orchestrator.outer_results import NAME, Estimate
from orchestrator.report_view import Cell, Column, Part, TableView
from orchestrator.score_text import MISSING, ScoreText, counted
from orchestrator.standing import Standing


def nested_part(standing: Standing) -> Part | None:
    """The outer folds; None without any."""
    plan = standing.plan
    rows = [row for row in standing.source.outer if row.epoch is not None]
    if not rows:
        return None
    test = ScoreText(plan.test_metric)
    names = list(dict.fromkeys((test.name, "test_accuracy", "test_f1", "test_loss")))
    columns = (
        Column("Test fold", numeric=True),
        Column("Chosen by the other folds"),
        Column("Epochs", numeric=True),
        *(Column(ScoreText(name).column, numeric=True) for name in names),
        Column("Configuration", code=True),
    )
    cells = tuple(
        (
            Cell(MISSING if row.trial.test_fold is None else str(row.trial.test_fold)),
            Cell(standing.label(row.trial.configuration)),
            Cell(MISSING if row.epoch is None else str(row.epoch + 1)),
            *(Cell(ScoreText(name).value(row.metric(name))) for name in names),
            Cell(row.trial.configuration.id),
        )
        for row in rows
    )
    table = TableView("Each test fold", columns, cells, f"In full: tables/{NAME}")
    found = _estimate(standing)
    text = [
        "For each test fold a cross-validation over the other folds has chosen a configuration,"
        " which was trained anew on all of them and tested once. Nothing is chosen on what it is"
        " scored on.",
    ]
    if found is not None:
        chosen = len({row.trial.configuration.id for row in rows})
        text.append(
            f"{test.heading}: {test.spoken(found.mean, found.std)} over"
            f" {counted(len(found.values), 'test')}. This is what choosing and training in this"
            " way is worth on clips that it has not seen, not the score of one configuration:"
            f" {counted(chosen, 'configuration')} of {len(plan.configurations):,} came to be"
            " chosen."
        )
    return Part("Nested cross-validation", tuple(text), (), (table,))


def nested_headline(standing: Standing) -> str:
    """The estimate in one sentence, empty while there is none."""
    found = _estimate(standing)
    if found is None:
        return ""
    test = ScoreText(found.metric)
    return (
        f"Nested cross-validation: {test.title} {test.spoken(found.mean, found.std)} over"
        f" {counted(len(found.values), 'outer test')}, by configurations that were chosen without"
        " them. "
    )


def _estimate(standing: Standing) -> Estimate | None:
    metric = standing.plan.test_metric
    return Estimate.of(metric, (row.metric(metric) for row in standing.source.outer))
