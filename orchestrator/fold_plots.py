"""Scores of each configuration on each fold: every value and the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.configuration_scores import ConfigurationScores
from orchestrator.fold_names import Fold, FoldNames, counted, fold_of
from orchestrator.metric_axis import MetricAxis
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_sheet import Legend, sheet
from orchestrator.plot_style import COLOURS, GREY, INK, MARKERS, SMALL
from orchestrator.run_digest import RunDigest

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 20
"""Configurations, the best ones."""

NAMED = 7
"""Folds up to which each has a colour and a mark."""


def draw_folds(folder: PlotFolder, digest: RunDigest) -> None:
    """One row a configuration, the best on top; one mark a fold, a line at the mean.

    Then the same for the test split, in the same order: it is by validation.

    Args:
        folder: takes the pictures; none is made where there is no score.
        digest: of the run directory.
    """
    ranked = digest.ranked
    tests = {one.configuration.id: one for one in digest.test_scores}
    of_test = [tests[one.configuration.id] for one in ranked]
    _draw_split(folder, digest, ranked, MetricAxis(digest.plan.metric), "folds")
    test_metric = MetricAxis(digest.plan.test_metric)
    _draw_split(folder, digest, of_test, test_metric, "folds_test")


def _draw_split(
    folder: PlotFolder,
    digest: RunDigest,
    ordered: Sequence[ConfigurationScores],
    metric: MetricAxis,
    name: str,
) -> None:
    if not any(one.values for one in ordered):
        return
    first = ordered[0]
    score = metric.score(first)
    folder.save(
        _figure(digest, ordered, metric),
        name,
        "Scores over the folds",
        f"{metric.words} of each configuration on each fold",
        f"{metric.words.capitalize()} on each fold and the mean, for the best"
        f" {min(SHOWN, len(ordered))} of {counted(len(ordered), 'configuration')}; the best by"
        f" {MetricAxis(digest.plan.metric).words} is {digest.names[first.configuration.id]}"
        + (f" with {score}." if score else "."),
    )


def _figure(
    digest: RunDigest, ordered: Sequence[ConfigurationScores], metric: MetricAxis
) -> Figure:
    shown = ordered[:SHOWN]
    folds = FoldNames(digest.plan).short
    row = 0.36 + 0.03 * min(len(folds), 6)
    made = sheet(
        f"{metric.words[0].upper()}{metric.words[1:]} of each configuration on each fold",
        _notes(digest, ordered, metric),
        height=0.85 + row * max(2, len(shown)),
        legend=_legend(folds, of_test=metric.metric != digest.plan.metric),
    )
    axes = made.panels[0]
    for place, one in enumerate(shown):
        _draw_row(axes, place, one, list(folds), metric)
    labels = [digest.names[one.configuration.id] + ("" if one.complete else " *") for one in shown]
    axes.set_yticks(range(len(shown)), [two_lines(text) for text in labels])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(metric.label)
    if any(len(one.values) > 1 for one in shown):
        axes.annotate("mean ± SD", (1.015, 1.0), xycoords="axes fraction", size=SMALL, va="bottom")
    return made.figure


def _draw_row(
    axes: Axes, place: int, one: ConfigurationScores, folds: Sequence[Fold], metric: MetricAxis
) -> None:
    if place % 2 == 0:
        axes.axhspan(place - 0.5, place + 0.5, color="#F5F5F5", zorder=0)
    mean = one.mean
    if mean is not None:
        # In axes' widths from left to right, in rows from top to bottom.
        across = axes.get_yaxis_transform()
        axes.text(
            1.015,
            place,
            metric.score(one, unit=False),
            transform=across,
            va="center",
            size=SMALL + 0.5,
        )
        ends = (place - 0.42, place + 0.42)
        axes.plot([mean * metric.factor] * 2, ends, color=INK, linewidth=2, zorder=2)
    for score in one.folds:
        if score.value is None:
            continue
        i = folds.index(fold_of(score.trial))
        # Folds of equal value stand above each other, not on each other.
        shift = 0.0 if len(folds) == 1 else 0.56 * (i / (len(folds) - 1) - 0.5)
        axes.plot(
            score.value * metric.factor,
            place + shift,
            **_mark(i, len(folds)),  # type: ignore[arg-type]
            zorder=3,
        )


def _mark(i: int, folds: int) -> dict[str, object]:
    if folds > NAMED:
        return {"marker": "o", "color": GREY, "markersize": 3.5, "linestyle": "none", "alpha": 0.8}
    style: dict[str, object] = {"marker": MARKERS[i], "color": COLOURS[i], "linestyle": "none"}
    return style | {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.6}


def _legend(folds: dict[Fold, str], *, of_test: bool) -> Legend:
    from matplotlib.lines import Line2D

    marks: list[Artist] = []
    labels = []
    if len(folds) <= NAMED:
        labels += [f"model of {name}" if of_test else name for name in folds.values()]
    else:
        labels.append(f"one of {len(folds)} folds")
    marks += [Line2D([], [], **_mark(i, len(folds))) for i in range(len(labels))]  # type: ignore[arg-type]
    mean = Line2D([], [], color=INK, marker="|", markersize=12, markeredgewidth=2, linestyle="none")
    return Legend([*marks, mean], [*labels, "mean"])


def _notes(digest: RunDigest, ranked: Sequence[ConfigurationScores], metric: MetricAxis) -> str:
    names = FoldNames(digest.plan)
    of_test = metric.metric != digest.plan.metric
    if of_test:
        notes = ["TEST clips, predicted by each fold's model; nothing is chosen by them."]
    else:
        notes = ["VALIDATION clips of each fold."]
    if names.repeats > 1:
        notes.append(f"One mark for each of {names.repeats} seeds.")
    if len(ranked) > 1:
        better = "lowest" if digest.plan.mode == "min" else "highest"
        by = MetricAxis(digest.plan.metric).words
        notes.append(f"Best on top ({better} mean{f' {by}' if of_test else ''}).")
    if len(ranked) > SHOWN:
        notes.append(f"The best {SHOWN}; {len(ranked) - SHOWN} more are left out.")
    if any(not one.complete for one in ranked[:SHOWN]):
        notes.append("* not every fold has finished.")
    planned = len(digest.plan.trials)
    if digest.finished < planned:
        notes.append(f"{digest.finished} of {planned} trials have finished.")
    return " ".join(note for note in notes if note)


def two_lines(text: str) -> str:
    """A long name on two lines, broken at the blank nearest to its middle."""
    if len(text) <= 26:
        return text
    blanks = [i for i, c in enumerate(text) if c == " "]
    if not blanks:
        return text
    middle = min(blanks, key=lambda i: abs(i - len(text) / 2))
    return f"{text[:middle]}\n{text[middle + 1 :]}"
