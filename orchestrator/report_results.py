"""The results at the head of a report: how far the sweep is, and the best configuration."""

from __future__ import annotations

import math

from orchestrator.configuration_scores import Best
from orchestrator.csv_files import text
from orchestrator.progress import duration
from orchestrator.records import Status
from orchestrator.report_nested import nested_headline
from orchestrator.report_source import TrialRow
from orchestrator.report_statistics import comparison_sentence
from orchestrator.report_view import (
    BestView,
    Cell,
    Column,
    Dot,
    StateView,
    Strip,
    TableView,
)
from orchestrator.run_sets import repeated
from orchestrator.score_text import ScoreText, counted
from orchestrator.standing import Standing
from orchestrator.verdict import words

_STRIPS = 5
_BESIDE = ("val_accuracy", "val_f1", "val_loss")


def state_view(standing: Standing) -> StateView:
    """How far the sweep is, and when it ran."""
    counts, total = standing.counts, len(standing.plan.every) + standing.plan.to_come
    done, failed = counts.get(Status.FINISHED, 0), counts.get(Status.FAILED, 0)
    pending = standing.to_go
    sentence = f"{done:,} of {counted(total, 'trial')} finished"
    if failed:
        sentence += f", {failed:,} failed"
    if pruned := counts.get(Status.PRUNED, 0):
        sentence += f", {pruned:,} stopped early"
    if pending:
        sentence += f", {pending:,} to go"
    return StateView(_word(standing, pending, failed), f"{sentence}.", _times(standing))


def _word(standing: Standing, pending: int, failed: int) -> str:
    if standing.running and pending + failed:
        return "running"
    if not pending:
        return "finished with failures" if failed else "finished"
    begun = any(standing.counts.get(status) for status in Status if status is not Status.PENDING)
    return "interrupted" if begun else "not started"


def _times(standing: Standing) -> str:
    times = standing.source.times.values()
    starts = [run.started for run in standing.source.environments]
    parts = [f"Started {moment(starts[0])}" if starts else "Started at an unknown time"]
    if len(starts) > 1:
        parts[0] += f", continued {counted(len(starts) - 1, 'time')}"
    if times:
        parts.append(f"last trial ended {moment(max(time.ended for time in times).isoformat())}")
        parts.append(f"{duration(sum(time.wall_seconds for time in times))} of trial time")
        parts.append("on " + ", ".join(sorted({time.device for time in times})))
    return "; ".join(parts) + "."


def moment(iso: str) -> str:
    """An ISO time in UTC for reading.

    >>> moment("2026-01-01T00:00:59+00:00")
    '2026-01-01 00:00 UTC'
    """
    return f"{iso[:10]} {iso[11:16]} UTC" if len(iso) >= 16 else iso


def headline(standing: Standing) -> str:
    """The result in one sentence; in two where it is a nested cross-validation's."""
    return nested_headline(standing) + _best_headline(standing)


def _best_headline(standing: Standing) -> str:
    best, verdict = standing.best, standing.verdict
    total = len(standing.plan.configurations)
    if best is None or verdict is None:
        some = standing.counts.get(Status.FINISHED, 0)
        until = "" if some else "; no trial has finished"
        return f"No configuration of {total:,} has all its folds finished yet{until}."
    values = [fold for fold in best.folds if fold.value is not None]
    score = standing.metric.spoken(best.mean, best.std if len(values) > 1 else None)
    mean = "a mean " if len(values) > 1 else "a "
    sentence = (
        f"{standing.label(best.configuration)} reaches {mean}{standing.metric.title} of {score}"
        f" over {_over(standing, best)}"
    )
    if total == 1:
        return f"{sentence}."
    complete = verdict.others + 1
    among = f"{total:,} configurations" if complete == total else f"the {complete:,} complete"
    return f"{sentence}, the best of {among}: {verdict.certainty}."


def _over(standing: Standing, best: Best) -> str:
    folds = len({f.trial.fold for f in best.folds})
    seeds = len({f.trial.seed for f in best.folds})
    return counted(folds, "fold") + (f" and {counted(seeds, 'seed')}" if seeds > 1 else "")


def best_view(standing: Standing) -> BestView | None:
    """The best configuration and how sure it is."""
    best, verdict = standing.best, standing.verdict
    if best is None or verdict is None:
        return None
    metric = standing.metric
    strips, scale = _strips(standing)
    runner_up = standing.label(verdict.runner_up) if verdict.runner_up else ""
    return BestView(
        configuration=best.configuration.id,
        score=metric.spread(best.mean, best.std) + metric.unit,
        metric=metric.heading,
        parameters=standing.parameters(best.configuration),
        folds=_folds(standing, best),
        verdict=tuple(words(verdict, metric, standing.plan.mode)),
        caveat=_caveat(standing),
        runner_up=runner_up,
        comparison=comparison_sentence(standing, verdict.runner_up),
        test=_test_score(standing, best),
        test_words=_test_words(standing, best),
        strips=strips,
        scale=scale,
        scale_words=f"by {metric.title}{' in %' if metric.in_percent else ''}: each dot is a fold"
        + (" and seed" if repeated(standing.plan) else "")
        + ", the bar is the mean",
    )


def _caveat(standing: Standing) -> str:
    if len(standing.plan.configurations) < 2:
        return ""
    return (
        "Read it with care: the folds share most of their training clips, so they agree more than"
        " independent trials would; and the best of several was picked by these very scores, which"
        " makes its mean look a little too good."
    )


def _rows(standing: Standing, best: Best) -> list[TrialRow]:
    own = {fold.trial.id for fold in best.folds}
    return [row for row in standing.source.trials if row.trial.id in own]


def _folds(standing: Standing, best: Best) -> TableView:
    metrics = tuple(dict.fromkeys((standing.plan.metric, *_BESIDE)))
    columns = [Column("Fold"), *(Column(ScoreText(m).column, numeric=True) for m in metrics)]
    rows = [
        (
            Cell(standing.fold_name(row.trial)),
            *(Cell(ScoreText(m).value(row.metric(m))) for m in metrics),
        )
        for row in _rows(standing, best)
    ]
    return TableView("Each fold of the best configuration", tuple(columns), tuple(rows))


def _test_score(standing: Standing, best: Best) -> str:
    name = standing.plan.test_metric
    values = [value for row in _rows(standing, best) if (value := row.metric(name)) is not None]
    if not values:
        return ""
    mean = math.fsum(values) / len(values)
    std = math.hypot(*(value - mean for value in values)) / math.sqrt(len(values))
    metric = ScoreText(name)
    return metric.spread(mean, std) + metric.unit


def _test_words(standing: Standing, best: Best) -> tuple[str, ...]:
    name = ScoreText(standing.plan.test_metric).title
    folds = list(dict.fromkeys(fold.trial.test_fold for fold in best.folds))
    if len(folds) > 1:
        return (f"Mean {name} over the {len(folds)} test folds, never used for any choice.",)
    return (
        f"Mean {name} on fold {text(folds[0])}, never used for any choice.",
        "Every training is tested on the same clips: the spread says how much trainings differ,"
        " not how another test fold would do.",
    )


def _strips(standing: Standing) -> tuple[tuple[Strip, ...], tuple[str, str]]:
    """The first few configurations on one scale, a little wider than their values."""
    shown = [one for rank, one in standing.ranked if rank is not None][:_STRIPS]
    values = [value for one in shown for value in one.values]
    if len(shown) < 2 or not values:
        return (), ("", "")
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or 0.01
    low, high = low - margin, high + margin

    def dot(value: float, label: str) -> Dot:
        return Dot(f"{100 * (value - low) / (high - low):.2f}%", label)

    metric = standing.metric
    strips = [
        Strip(
            label=standing.label(one.configuration),
            value=metric.spread(one.mean, one.std),
            mean=dot(one.mean or 0.0, f"mean {metric.value(one.mean)}"),
            dots=tuple(
                dot(fold.value, f"{standing.fold_name(fold.trial)}: {metric.value(fold.value)}")
                for fold in one.folds
                if fold.value is not None
            ),
        )
        for one in shown
    ]
    return tuple(strips), (metric.value(low), metric.value(high))
