"""The score against each hyperparameter: every trial, and the mean of each value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.configuration_labels import path_names, value_name
from orchestrator.hyperparameter_effects import PARTS, Hyperparameter, hyperparameters
from orchestrator.metric_axis import MetricAxis
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_sheet import Legend, sheet
from orchestrator.plot_style import COLOURS, GREY, MARKERS, label
from orchestrator.run_digest import RunDigest

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MOST_PANELS = 12

CROWD = 300
"""Points from which they are small and faint."""

SECTION = "Hyperparameters"


def draw_hyperparameters(folder: PlotFolder, digest: RunDigest) -> None:
    """One panel a hyperparameter; none where nothing varies.

    Args:
        folder: takes the picture.
        digest: of the run directory.
    """
    found = hyperparameters(digest.scores, digest.plan.varying)
    if not found:
        return
    metric = MetricAxis(digest.plan.metric)
    names = path_names(digest.plan.varying)
    folder.save(
        _figure(digest, found),
        "hyperparameters",
        SECTION,
        f"{metric.words} against each hyperparameter",
        f"{metric.words.capitalize()} of every finished trial against each of {len(found)}"
        " hyperparameters, with the mean of each value" + _strongest_in_words(found, names) + ".",
    )


def _strongest_in_words(found: Sequence[Hyperparameter], names: Mapping[str, str]) -> str:
    """Empty where each value has one configuration only: then it explains everything."""
    best = max(found, key=lambda one: one.effect)
    if len(best.scores) <= len(np.unique(best.groups)):
        return ""
    share = f"{100 * best.effect:.0f} %"
    return (
        f"; {label(names[best.path])} alone explains {share} of the variance between"
        " configurations, more than any other"
    )


def _figure(digest: RunDigest, found: Sequence[Hyperparameter]) -> Figure:
    metric = MetricAxis(digest.plan.metric)
    names = path_names(digest.plan.varying)
    strongest = sorted(found, key=lambda one: -one.effect)[:MOST_PANELS]
    shown = [one for one in found if one in strongest]
    models = list(dict.fromkeys(one.configuration.model.name for one in digest.scores if one.folds))
    made = sheet(
        f"{metric.words[0].upper()}{metric.words[1:]} against each hyperparameter",
        _notes(digest, found, shown),
        panels=len(shown),
        columns=2,
        height=2.6 if len(shown) > 1 else 3.3,
        legend=_legend(models),
        share_y=True,
    )
    for i, (axes, one) in enumerate(zip(made.panels, shown, strict=True)):
        for m, model in enumerate(models):
            _draw(axes, one, model, m, metric)
        set_axis(axes, one)
        axes.set_xlabel(label(names[one.path], 40))
        if i % 2 == 0:
            axes.set_ylabel(metric.label)
    return made.figure


def set_axis(axes: Axes, one: Hyperparameter, which: Literal["x", "y"] = "x") -> None:
    """An axis that suits the values: names, numbers or powers, with ticks at few ones."""
    from matplotlib.ticker import NullLocator

    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    set_scale = axes.set_xscale if which == "x" else axes.set_yscale
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    axes.margins(x=0.08, y=0.08)
    if one.scale == "names":
        texts = [value_name(level) for level in one.levels]
        axis.set_ticks(range(len(texts)), texts)
        if which == "x" and sum(map(len, texts)) + 2 * len(texts) > 34:
            for tick in axes.get_xticklabels():
                tick.set(rotation=35, ha="right", rotation_mode="anchor")
        set_limits(-0.6, len(texts) - 0.4)
        axes.grid(visible=False, axis=which)
        return
    numbers = np.unique(one.places)
    if one.scale == "log":
        set_scale("log")
        axis.set_minor_locator(NullLocator())
        ticks = numbers if len(numbers) <= 6 else _powers(numbers)
    elif len(numbers) <= 6:
        ticks = numbers
    else:
        return
    axis.set_ticks(list(ticks), [f"{tick:g}" for tick in ticks])


def _draw(axes: Axes, one: Hyperparameter, model: str, m: int, metric: MetricAxis) -> None:
    colour = COLOURS[m % len(COLOURS)]
    of_model = [s.configuration.model.name == model for s in one.scores]
    indices = [i for i, own in enumerate(of_model) if own for _ in one.scores[i].values]
    if not indices:
        return
    scores = [v for s, own in zip(one.scores, of_model, strict=True) if own for v in s.values]
    x, y = one.places[indices], np.array(scores) * metric.factor
    crowd = len(x) > CROWD
    axes.plot(
        x,
        y,
        linestyle="none",
        marker="o",
        color=colour,
        alpha=0.15 if crowd else 0.4,
        markersize=2.5 if crowd else 4,
        markeredgewidth=0,
        zorder=2,
    )
    groups = one.groups[indices]
    present = np.unique(groups)
    axes.plot(
        [_middle(x[groups == g], one) for g in present],
        [float(y[groups == g].mean()) for g in present],
        color=colour,
        marker=MARKERS[m % len(MARKERS)],
        markersize=8.5,
        markeredgecolor="white",
        # Names have no order that a line could follow.
        linestyle="-" if one.numeric else "none",
        linewidth=1.3,
        zorder=3,
    )


def _middle(places: NDArray[np.float64], one: Hyperparameter) -> float:
    if one.scale == "log":
        return float(np.exp(np.log(places).mean()))
    return float(places.mean())


def _powers(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Powers of ten within the numbers, or the ends where there are fewer than two."""
    low, high = float(numbers[0]), float(numbers[-1])
    exponents = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
    step = -(-len(exponents) // 6) or 1
    return 10.0 ** exponents[::step] if len(exponents) > 1 else np.array([low, high])


def _legend(models: Sequence[str]) -> Legend:
    from matplotlib.lines import Line2D

    handles: list[Artist] = [
        Line2D([], [], color=GREY, marker="o", markersize=4, alpha=0.6, linestyle="none")
    ]
    labels = ["one trial"]
    for i, model in enumerate(models):
        marker = MARKERS[i % len(MARKERS)]
        colour = COLOURS[i % len(COLOURS)]
        handles.append(
            Line2D([], [], color=colour, marker=marker, markersize=8.5, markeredgecolor="white")
        )
        labels.append(f"mean, {label(model, 40)}")
    return Legend(handles, labels)


def _notes(
    digest: RunDigest, found: Sequence[Hyperparameter], shown: Sequence[Hyperparameter]
) -> str:
    split = digest.plan.metric.partition("_")[0]
    whose = "VALIDATION" if split == "val" else split
    notes = [
        f"Small: each trial on its {whose} fold. Large: the mean of a value, whatever the other"
        " settings."
    ]
    if any(one.is_range for one in shown):
        notes.append(f"Of a range: the mean of each {_PART_NAMES[PARTS]}.")
    if len(found) > len(shown):
        notes.append(f"The {len(shown)} of {len(found)} that explain most of the variance.")
    planned = len(digest.plan.trials)
    if digest.finished < planned:
        notes.append(f"{digest.finished} of {planned} trials have finished.")
    return " ".join(notes)


_PART_NAMES = {4: "quarter"}
