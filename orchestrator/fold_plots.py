"""Scores of each configuration on each fold: every value and the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.configuration_labels import configuration_names
from orchestrator.configuration_scores import ConfigurationScores
from orchestrator.fold_names import Fold, FoldNames, fold_of
from orchestrator.metric_axis import MetricAxis
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_style import COLOURS, GREY, INK, MARKERS, Legend, sheet
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
    """One row a configuration, the best on top; one mark a fold, a line at the mean."""
    ranked = [one for one in digest.ranked if one.values]
    if not ranked:
        return
    metric = MetricAxis(digest.plan.metric)
    best = ranked[0]
    name = configuration_names(one.configuration for one in ranked[:SHOWN])
    mean, std = best.mean or 0.0, best.std or 0.0
    folder.save(
        _figure(digest, ranked),
        "folds",
        "Scores over the folds",
        f"{metric.words} of each configuration on each fold",
        f"{metric.words.capitalize()} on each fold and the mean, for the best"
        f" {min(SHOWN, len(ranked))} of {len(ranked)} configurations; the best is"
        f" {name[best.configuration.id]} with {metric.mean_and_std(mean, std)}.",
    )


def _figure(digest: RunDigest, ranked: Sequence[ConfigurationScores]) -> Figure:
    metric = MetricAxis(digest.plan.metric)
    shown = ranked[:SHOWN]
    folds = FoldNames(digest.plan).short
    row = 0.34 if len(folds) <= 4 else 0.42
    made = sheet(
        f"{metric.words[0].upper()}{metric.words[1:]} of each configuration on each fold",
        _notes(digest, ranked),
        height=0.75 + row * max(2, len(shown)),
        legend=_legend(folds),
    )
    axes = made.panels[0]
    names = configuration_names(one.configuration for one in shown)
    for place, one in enumerate(shown):
        _draw_row(axes, place, one, list(folds), metric)
    labels = [names[one.configuration.id] + ("" if one.complete else " *") for one in shown]
    axes.set_yticks(range(len(shown)), [_two_lines(text) for text in labels])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(metric.label)
    return made.figure


def _draw_row(
    axes: Axes, place: int, one: ConfigurationScores, folds: Sequence[Fold], metric: MetricAxis
) -> None:
    if place % 2 == 0:
        axes.axhspan(place - 0.5, place + 0.5, color="#F5F5F5", zorder=0)
    mean = one.mean
    if mean is not None:
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


def _legend(folds: dict[Fold, str]) -> Legend:
    from matplotlib.lines import Line2D

    marks: list[Artist] = []
    labels = []
    if len(folds) <= NAMED:
        labels += list(folds.values())
    else:
        labels.append(f"one of {len(folds)} folds")
    marks += [Line2D([], [], **_mark(i, len(folds))) for i in range(len(labels))]  # type: ignore[arg-type]
    mean = Line2D([], [], color=INK, marker="|", markersize=12, markeredgewidth=2, linestyle="none")
    return Legend([*marks, mean], [*labels, "mean"])


def _notes(digest: RunDigest, ranked: Sequence[ConfigurationScores]) -> str:
    names = FoldNames(digest.plan)
    split = digest.plan.metric.partition("_")[0]
    notes = ["Each VALIDATION fold in turn; the test fold is not in it." if split == "val" else ""]
    if names.repeats > 1:
        notes.append(f"One mark for each of {names.repeats} seeds.")
    if len(ranked) > 1:
        better = "lowest" if digest.plan.mode == "min" else "highest"
        notes.append(f"Best ({better} mean) on top.")
    if len(ranked) > SHOWN:
        notes.append(f"The best {SHOWN}; {len(ranked) - SHOWN} more are left out.")
    if any(not one.complete for one in ranked[:SHOWN]):
        notes.append("* not every fold has finished.")
    planned = len(digest.plan.trials)
    if digest.finished < planned:
        notes.append(f"{digest.finished} of {planned} trials have finished.")
    return " ".join(note for note in notes if note)


def _two_lines(text: str) -> str:
    """A long name on two lines, broken at the blank nearest to its middle."""
    if len(text) <= 26:
        return text
    blanks = [i for i, c in enumerate(text) if c == " "]
    if not blanks:
        return text
    middle = min(blanks, key=lambda i: abs(i - len(text) / 2))
    return f"{text[:middle]}\n{text[middle + 1 :]}"
