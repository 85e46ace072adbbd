"""The statistics of a report: each configuration beside the best, and the ways to choose epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator import comparison_table, selection_rules
from orchestrator.protocols import score_meaning
from orchestrator.report_tables import MOST_ROWS
from orchestrator.report_view import Cell, Column, Part, TableView
from orchestrator.score_text import MISSING, ScoreText, rounded
from orchestrator.selection_rules import Rule
from orchestrator.standing import Standing
from orchestrator.trials import Configuration

_RULES = {
    Rule.VALIDATION: "each trial's best epoch on validation",
    Rule.COMMON: "one epoch for all folds, the best on validation by the mean over them",
    Rule.LAST: "the last epoch",
    Rule.TEST: "each trial's best epoch on the test split: optimistic, for comparison only",
}

_MOST_SENTENCES = 12

_Row = Mapping[str, str]


def statistics_parts(standing: Standing) -> tuple[Part, ...]:
    """How sure the differences are, and what the choice of the epoch makes of the scores."""
    return tuple(part for part in (_comparisons(standing), _rules(standing)) if part is not None)


def comparison_sentence(standing: Standing, configuration: Configuration | None) -> str:
    """What the statistics say of a configuration beside the best; empty where they do not."""
    if configuration is None:
        return ""
    row = _by_configuration(standing).get(configuration.id, {})
    words = row.get("sentence", "")
    return f"{words}." if words else ""


def _by_configuration(standing: Standing) -> dict[str, _Row]:
    return {row["configuration"]: row for row in _rows(standing, comparison_table.NAME)}


def _rows(standing: Standing, name: str) -> list[_Row]:
    table = standing.source.table(name)
    return [dict(zip(table.header, row, strict=False)) for row in table.rows] if table else []


def _comparisons(standing: Standing) -> Part | None:
    rows = _by_configuration(standing)
    if not rows or standing.best is None:
        return None
    ranked = [one.configuration for _, one in standing.ranked]
    shown = [(one, rows[one.id]) for one in ranked[:MOST_ROWS] if one.id in rows]
    note = f"Full precision and every figure: tables/{comparison_table.NAME}."
    if len(shown) < len(ranked):
        note = f"The first {len(shown)} of {len(ranked):,}. {note}"
    tables = [_over_folds(standing, shown, note)]
    if any(row["pooled_clips"] for _, row in shown):
        tables.append(_over_clips(standing, shown, note))
    sentences = tuple((Cell(f"{row['sentence']}."),) for _, row in shown[:_MOST_SENTENCES])
    tables.insert(0, TableView("In words", (Column("The best first", long=True),), sentences))
    return Part("Each configuration beside the best", _how_to_read(standing), (), tuple(tables))


_Shown = Sequence[tuple[Configuration, _Row]]


def _over_folds(standing: Standing, shown: _Shown, note: str) -> TableView:
    """The metric that configurations are ranked by, over the validation folds."""
    metric = standing.metric
    unit, points = (", %", ", points") if metric.in_percent else ("", "")
    columns = (
        Column("Configuration", long=True),
        Column(f"Mean{unit}", numeric=True),
        Column(f"95 % interval{unit}", numeric=True),
        Column("SD, ddof 0", numeric=True),
        Column("SD, ddof 1", numeric=True),
        Column(f"Best less this{points}", numeric=True),
        Column(f"95 %, corrected{points}", numeric=True),
        Column("p, corrected t", numeric=True),
        Column("p, Wilcoxon", numeric=True),
        Column("P(best better)", numeric=True),
        Column("P(equivalent)", numeric=True),
    )
    rows = tuple(
        (
            Cell(standing.label(one)),
            _value(metric, row["mean"]),
            _range(metric, row["t_low"], row["t_high"]),
            _value(metric, row["std_ddof0"]),
            _value(metric, row["std_ddof1"]),
            _value(metric, row["difference"]),
            _range(metric, row["corrected_low"], row["corrected_high"]),
            _probability(row["corrected_p_holm"]),
            _probability(row["wilcoxon_p_holm"]),
            _probability(row["probability_best_better"]),
            _probability(row["probability_equivalent"]),
        )
        for one, row in shown
    )
    caption = f"{metric.heading} over the folds"
    return TableView(caption, columns, rows, note, marked=0, sortable=True)


def _over_clips(standing: Standing, shown: _Shown, note: str) -> TableView:
    """Answers to clips, pooled over the folds; in the order by validation, not sortable."""
    of_test = any(row["pooled_split"] == "test" for _, row in shown)
    accuracy = ScoreText("test_accuracy" if of_test else "val_accuracy")
    columns = (
        Column("Configuration", long=True),
        Column("Clips", numeric=True),
        Column("Answers", numeric=True),
        Column(accuracy.column, numeric=True),
        Column("95 %, Wilson, %", numeric=True),
        Column("Better by the best", numeric=True),
        Column("Better by this", numeric=True),
        Column("p, McNemar", numeric=True),
        Column("McNemar by"),
    )
    rows = tuple(
        (
            Cell(standing.label(one)),
            Cell(row["pooled_clips"] or MISSING),
            Cell(row["pooled_answers"] or MISSING),
            _value(accuracy, row["pooled_accuracy"]),
            _range(accuracy, row["wilson_low"], row["wilson_high"]),
            Cell(row["mcnemar_best_only"] or MISSING),
            Cell(row["mcnemar_this_only"] or MISSING),
            _probability(row["mcnemar_p_holm"]),
            Cell(row["mcnemar_test"] or MISSING),
        )
        for one, row in shown
    )
    if of_test:
        note = f"Test scores are shown, and nothing is chosen by them. {note}"
    return TableView(f"{accuracy.heading} over pooled clips", columns, rows, note, marked=0)


def _how_to_read(standing: Standing) -> tuple[str, ...]:
    meaning = score_meaning(standing.plan.protocol, standing.has_test)
    return (
        f"{meaning[0].upper()}{meaning[1:]}.",
        "Over folds each validation fold is one observation, its seeds averaged. The interval of a"
        " mean is Student's; that of a difference and its p value are Nadeau and Bengio's, which"
        " allow for the training clips that folds share. P(best better) and P(equivalent) are of"
        " the Bayesian correlated t-test; equivalent is a difference of at most 0.01 (1 point), for"
        " a loss there is no such region. Over clips each clip is one observation, however many"
        " models answer it. P values are adjusted for the number of configurations (Holm).",
    )


def _value(metric: ScoreText, cell: str) -> Cell:
    return Cell(metric.value(float(cell)) if cell else MISSING, cell)


def _range(metric: ScoreText, low: str, high: str) -> Cell:
    if not low:
        return Cell(MISSING, "")
    return Cell(f"{metric.value(float(low))} to {metric.value(float(high))}", low)


def _probability(cell: str) -> Cell:
    if not cell:
        return Cell(MISSING, "")
    value = float(cell)
    return Cell("< 0.001" if 0 < value < 0.0005 else rounded(value, 3), cell)


def _rules(standing: Standing) -> Part | None:
    best = standing.best
    if best is None:
        return None
    own = best.configuration.id
    rows = [r for r in _rows(standing, selection_rules.NAME) if r["configuration"] == own]
    if not rows:
        return None
    val, test = ScoreText("val_accuracy"), ScoreText("test_accuracy")
    tests = (
        (
            Column("Mean ± std test accuracy, %", numeric=True),
            Column("Test gap, points", numeric=True),
        )
        if standing.has_test
        else ()
    )
    columns = (
        Column("Rule", code=True),
        Column("The epoch that counts", long=True),
        Column("Epochs, a trial each", long=True),
        Column("Mean ± std validation accuracy, %", numeric=True),
        Column("Validation gap, points", numeric=True),
        *tests,
    )
    cells = tuple(
        (
            Cell(row["rule"] + (" (used)" if row["used"] == "true" else "")),
            Cell(_RULES[Rule(row["rule"])]),
            Cell(row["epochs"].strip("[]").replace(",", ", ") or MISSING),
            *_rule_cells(val, row, "val"),
            *(_rule_cells(test, row, "test") if tests else ()),
        )
        for row in rows
    )
    caption = f"The best configuration, {standing.label(best.configuration)}, by four rules"
    note = f"All configurations: tables/{selection_rules.NAME}."
    table = TableView(caption, columns, cells, note)
    return Part("Which epoch counts", _rule_words(standing, rows), (), (table,))


def _rule_cells(metric: ScoreText, row: _Row, split: str) -> tuple[Cell, Cell]:
    mean, std = row[f"mean_{split}_accuracy"], row[f"std_{split}_accuracy"]
    gap = row[f"gap_{split}_accuracy"]
    spread = metric.spread(float(mean), float(std)) if mean else MISSING
    return Cell(spread, mean), Cell(metric.value(float(gap)) if gap else MISSING, gap)


def _rule_words(standing: Standing, rows: list[_Row]) -> tuple[str, ...]:
    words = [
        "One training, four ways to say which of its epochs counts; a gap is the mean less that"
        f" of {Rule.VALIDATION}. Nothing is ranked by these figures."
    ]
    if not standing.has_test:
        words.append("There is no test split, so that no rule's test score is known.")
    elif any(not row["mean_test_accuracy"] for row in rows):
        words.append(
            "Empty test scores are not known: train.test_every_epoch: true evaluates the test"
            " split after every epoch."
        )
    if len({trial.test_fold for trial in standing.plan.trials}) > 1:
        words.append(
            f"By {Rule.COMMON} a fold that tests one model has validated another, and so has had a"
            " say in the epoch: its test score is a little too good."
        )
    return (" ".join(words),)
