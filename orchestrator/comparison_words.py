"""What a comparison says, in one sentence for people."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.comparisons import AgainstBest, Comparisons, ConfigurationStatistics
from orchestrator.score_text import ScoreText, counted, rounded

_EQUAL = 1e-12
"""Means that are equal on paper differ in their last bits."""


def sentence(
    comparisons: Comparisons, row: ConfigurationStatistics, names: Mapping[str, str]
) -> str:
    """One configuration beside the best.

    Args:
        comparisons: of all.
        row: one of them.
        names: what configurations are called, by identity.

    Returns:
        A sentence without a full stop; empty while there is no best.
    """
    best = comparisons.best
    if best is None:
        return ""
    name, of_best = names[row.scores.configuration.id], names[best.configuration.id]
    if row.scores.configuration.id == best.configuration.id:
        total = len(comparisons.rows)
        metric = ScoreText(comparisons.plan.metric)
        return (
            f"{name} has the best mean {metric.title} of {counted(total, 'configuration')}"
            if total > 1
            else f"{name} is the only configuration"
        )
    against = row.against_best
    if against is None:
        return f"{name} has no finished fold to compare with {of_best}"
    where = "here" if row.scores.complete else f"on the {counted(against.folds, 'finished fold')}"
    judgement = _judgement(comparisons, against, name, of_best, where)
    return f"{judgement} ({_figures(comparisons, against)})"


def _judgement(
    comparisons: Comparisons, against: AgainstBest, name: str, of_best: str, where: str
) -> str:
    corrected = against.corrected
    if corrected is None:
        if abs(against.difference) < _EQUAL:
            return f"{name} scores like {of_best} {where}"
        if against.folds == 1:
            return f"one fold cannot tell {of_best} from {name}"
        if against.test_to_train is None:
            return f"{of_best} beside {name}: not every fold's size is known yet"
        return f"{of_best} is equally far from {name} in every fold, so that no interval can be had"
    if not against.shown:
        judgement = f"{of_best} is not shown to be better than {name} {where}"
        if 0.0 not in corrected.interval:
            judgement += f" once {counted(comparisons.tested, 'comparison')} are allowed for"
        return judgement
    higher = against.difference > 0
    if higher == (comparisons.plan.mode == "max"):
        return f"{of_best} is better than {name} {where}"
    return f"{name} is better than {of_best} {where}"


def _figures(comparisons: Comparisons, against: AgainstBest) -> str:
    """The difference and its interval, in percentage points where the metric is in percent."""
    in_percent = ScoreText(comparisons.plan.metric).in_percent
    unit = " points" if in_percent else ""
    figures = f"difference {_number(against.difference, in_percent)}{unit}"
    if against.corrected is not None:
        low, high = against.corrected.interval.low, against.corrected.interval.high
        figures += f", 95 % interval {_number(low, in_percent)} to {_number(high, in_percent)}"
    return figures


def _number(value: float, in_percent: bool) -> str:
    text = rounded(value, 1, shift=2) if in_percent else rounded(value, 3)
    return text.lstrip("-") if float(text) == 0 else text
