"""How sure the order of the configurations is: means and differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.comparisons import Comparisons, ConfigurationStatistics
from orchestrator.fold_plots import two_lines
from orchestrator.metric_axis import MetricAxis
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_sheet import sheet
from orchestrator.plot_style import BLUE, GREY, INK, PALE, VERMILLION
from orchestrator.run_digest import RunDigest
from orchestrator.score_text import counted
from orchestrator.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 20
"""Configurations, the best ones."""


def draw_comparisons(folder: PlotFolder, digest: RunDigest, comparisons: Comparisons) -> None:
    """One row a configuration, the best on top: its mean, and how far the best is from it.

    Args:
        folder: takes the picture; none is made while no difference has an interval.
        digest: of the run directory.
        comparisons: of the same run directory.
    """
    best = comparisons.best
    if best is None or not comparisons.tested:
        return
    by_id = {row.scores.configuration.id: row for row in comparisons.rows}
    ranked = [by_id[one.configuration.id] for one in digest.ranked]
    shown = sum(row.against_best is not None and row.against_best.shown for row in ranked)
    metric = MetricAxis(comparisons.plan.metric)
    others = len(comparisons.rows) - 1
    folder.save(
        _figure(digest, comparisons, ranked, metric),
        "comparisons",
        "Scores over the folds",
        "How sure the order is",
        f"Mean {metric.words} with its 95 % t interval over folds, and the difference of the best"
        f" configuration, {digest.names[best.configuration.id]}, from each other one with its"
        f" corrected 95 % interval; {shown or 'none'} of {counted(others, 'difference')} is shown"
        " by the corrected t-test after Holm's adjustment.",
    )


def _figure(
    digest: RunDigest,
    comparisons: Comparisons,
    ranked: Sequence[ConfigurationStatistics],
    metric: MetricAxis,
) -> Figure:
    rows = ranked[:SHOWN]
    made = sheet(
        "Means over the folds, and how far the best is from each",
        _notes(comparisons, ranked, metric),
        panels=2,
        columns=2,
        height=0.95 + 0.36 * max(2, len(rows)),
        share_y=True,
    )
    means, differences = made.panels
    for place, row in enumerate(rows):
        _draw_mean(means, place, row, metric)
        _draw_difference(differences, place, row, metric)
    differences.axvline(0, color=INK, linewidth=1, zorder=1)
    if comparisons.rope:
        reach = comparisons.rope * metric.factor
        differences.axvspan(-reach, reach, color=PALE, alpha=0.5, linewidth=0, zorder=0)
    if not comparisons.plan.metric.endswith("_loss"):
        # Two or three folds give intervals far beyond what a fraction, or a difference, can be.
        _limit(means, 0.0, metric.factor)
        _limit(differences, -metric.factor, metric.factor)
    names = [
        digest.names[row.scores.configuration.id] + ("" if row.scores.complete else " *")
        for row in rows
    ]
    means.set_yticks(range(len(rows)), [two_lines(name) for name in names])
    means.set_ylim(len(rows) - 0.4, -0.6)
    unit = "percentage points" if metric.factor == 100 else metric.words
    for axes, label in ((means, metric.label), (differences, f"best less this, {unit}")):
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
    return made.figure


def _draw_mean(axes: Axes, place: int, row: ConfigurationStatistics, metric: MetricAxis) -> None:
    mean = row.scores.mean
    if mean is not None:
        interval = row.over_folds.interval if row.over_folds else None
        _draw_interval(axes, place, mean, interval, metric, BLUE)


def _draw_difference(
    axes: Axes, place: int, row: ConfigurationStatistics, metric: MetricAxis
) -> None:
    against = row.against_best
    if against is None:
        return
    interval = against.corrected.interval if against.corrected else None
    colour = VERMILLION if against.shown else GREY
    _draw_interval(axes, place, against.difference, interval, metric, colour)


def _draw_interval(
    axes: Axes,
    place: int,
    value: float,
    interval: Interval | None,
    metric: MetricAxis,
    colour: str,
) -> None:
    """A mark, and a line where there is an interval."""
    if interval is not None:
        ends = (interval.low * metric.factor, interval.high * metric.factor)
        axes.plot(ends, [place] * 2, color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
    axes.plot(
        value * metric.factor,
        place,
        "o",
        color=colour,
        markersize=6.5,
        markeredgecolor="white",
        zorder=3,
    )


def _limit(axes: Axes, lowest: float, highest: float) -> None:
    low, high = axes.get_xlim()
    margin = 0.02 * (highest - lowest)
    axes.set_xlim(max(low, lowest - margin), min(high, highest + margin))


def _notes(
    comparisons: Comparisons, ranked: Sequence[ConfigurationStatistics], metric: MetricAxis
) -> str:
    notes = [
        "VALIDATION clips. Left: mean and 95 % t interval over folds. Right: Nadeau and Bengio's"
        " corrected 95 % interval of the difference; coloured where it is shown after Holm's"
        " adjustment."
    ]
    if comparisons.rope:
        reach = f"{comparisons.rope * metric.factor:g}"
        unit = " point" if metric.factor == 100 else ""
        notes.append(f"Grey band: within {reach}{unit}, the same for practical purposes.")
    if any(row.over_folds is None for row in ranked[:SHOWN]):
        notes.append("No line: too few folds, or no spread.")
    if len(ranked) > SHOWN:
        notes.append(f"The best {SHOWN}; {len(ranked) - SHOWN} more are left out.")
    if any(not row.scores.complete for row in ranked[:SHOWN]):
        notes.append("* not every fold has finished.")
    return " ".join(notes)
