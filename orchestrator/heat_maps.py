"""Heat maps: the score against two hyperparameters at once, for the pairs that matter most."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.configuration_labels import path_names, value_name
from orchestrator.hyperparameter_effects import Grid, Hyperparameter, grid, hyperparameters
from orchestrator.hyperparameter_plots import SECTION, set_axis
from orchestrator.metric_axis import MetricAxis
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_sheet import colour_bar, sheet
from orchestrator.plot_style import GREY, VERMILLION, ink_on, label, matrix_colours
from orchestrator.run_digest import ModelRuns, RunDigest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MOST_PAIRS = 3
"""Pairs of a model that are drawn, those of the largest effects first."""


def draw_heat_maps(folder: PlotFolder, digest: RunDigest, model: ModelRuns, name: str) -> None:
    """A heat map for each of a few pairs; of two ranges a cloud of points in the same colours.

    Args:
        folder: takes the pictures.
        digest: of the run directory.
        model: with at least one configuration.
        name: of the model in file names.
    """
    own = [one for one in digest.scores if one.configuration.model.name == model.name]
    found = hyperparameters(own, digest.plan.varying)
    # Stable: of equal effects the one that stands first in the plan.
    strongest = sorted(found, key=lambda one: -one.effect)
    pairs = sorted(
        combinations(range(len(strongest)), 2), key=lambda pair: (pair[0] + pair[1], pair)
    )
    names = path_names(digest.plan.varying)
    metric = MetricAxis(digest.plan.metric)
    for number, (i, j) in enumerate(pairs[:MOST_PAIRS], start=1):
        # The one with more values has the longer side.
        rows, columns = sorted((strongest[i], strongest[j]), key=lambda one: len(one.levels))
        first, second = label(names[rows.path], 30), label(names[columns.path], 30)
        cloud = rows.is_range or columns.is_range
        draw = _cloud_figure if cloud else _grid_figure
        folder.save(
            draw(digest, model, rows, columns),
            f"heat_map_{name}_{number}",
            SECTION,
            f"{model.name}: {metric.words} against {first} and {second}",
            f"{metric.words.capitalize()} of {model.name} by {first} and {second}: "
            + ("one point a configuration." if cloud else _best_in_words(digest, rows, columns)),
        )


def _best_in_words(digest: RunDigest, rows: Hyperparameter, columns: Hyperparameter) -> str:
    cells = grid(rows, columns)
    row, column = cells.best(digest.plan.mode)
    mean = float(cells.means[row, column])
    return (
        f"best {MetricAxis(digest.plan.metric).number(mean)} at"
        f" {value_name(rows.levels[row])} and {value_name(columns.levels[column])}."
    )


def _title(digest: RunDigest, model: ModelRuns, rows: Hyperparameter, cols: Hyperparameter) -> str:
    names = path_names(digest.plan.varying)
    words = MetricAxis(digest.plan.metric).words
    return f"{model.name}: {words} by {label(names[rows.path])} and {label(names[cols.path])}"


def _grid_figure(
    digest: RunDigest, model: ModelRuns, rows: Hyperparameter, columns: Hyperparameter
) -> Figure:
    metric = MetricAxis(digest.plan.metric)
    names = path_names(digest.plan.varying)
    cells = grid(rows, columns)
    fewest, most = int(cells.trials[cells.trials > 0].min()), int(cells.trials.max())
    trials = f"{most}" if fewest == most else f"{fewest} to {most}"
    notes = f"A cell: mean {metric.label} over the {trials} finished trials with both values"
    others = len(hyperparameters(list(rows.scores), digest.plan.varying)) > 2
    notes += ", whatever their other settings." if others else "."
    made = sheet(
        _title(digest, model, rows, columns),
        f"{notes} Frame: the best cell.",
        height=1.1 + max(0.55, min(0.9, 5.0 / len(rows.levels))) * len(rows.levels),
        width=6.2,
    )
    axes = made.panels[0]
    image = axes.imshow(
        cells.means * metric.factor,
        cmap=_colours(digest),
        aspect="auto",
        interpolation="nearest",
    )
    shown = [value_name(level) for level in columns.levels]
    tilted = sum(map(len, shown)) + 2 * len(shown) > 60
    axes.set_xticks(range(len(shown)), shown, rotation=35 if tilted else 0)
    axes.set_yticks(range(len(rows.levels)), [value_name(level) for level in rows.levels])
    axes.set_xlabel(label(names[columns.path], 40))
    axes.set_ylabel(label(names[rows.path], 40))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    _write_cells(axes, image, cells, metric)
    _frame(axes, *cells.best(digest.plan.mode))
    colour_bar(made.figure, image, [axes], metric.label)
    return made.figure


def _write_cells(axes: Axes, image: AxesImage, cells: Grid, metric: MetricAxis) -> None:
    size = 10.5 if cells.means.shape[1] <= 8 else 8.0
    for row, column in np.ndindex(cells.means.shape):
        mean = float(cells.means[row, column])
        if np.isnan(mean):
            axes.text(column, row, "–", ha="center", va="center", size=size)
            continue
        axes.text(
            column,
            row,
            metric.number(mean),
            ha="center",
            va="center",
            size=size,
            color=ink_on(image, mean * metric.factor),
        )


def _frame(axes: Axes, row: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    corner = (column - 0.5, row - 0.5)
    # White under the colour: it shows on dark and on bright cells, and in grey print.
    for colour, width in (("white", 6.0), (VERMILLION, 3.0)):
        axes.add_patch(
            Rectangle(
                corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=5
            )
        )


def _cloud_figure(
    digest: RunDigest, model: ModelRuns, rows: Hyperparameter, columns: Hyperparameter
) -> Figure:
    """One point a configuration, at its two values."""
    metric = MetricAxis(digest.plan.metric)
    names = path_names(digest.plan.varying)
    x_of = {s.configuration.id: x for s, x in zip(columns.scores, columns.places, strict=True)}
    y_of = {s.configuration.id: y for s, y in zip(rows.scores, rows.places, strict=True)}
    # The worst first: the better ones lie above the worse, and the best is the last.
    points = [
        (one.mean or 0.0, x_of[one.configuration.id], y_of[one.configuration.id])
        for one in reversed(digest.ranked)
        if one.configuration.id in x_of.keys() & y_of.keys()
    ]
    made = sheet(
        _title(digest, model, rows, columns),
        f"A point: one configuration's mean over the folds. Ring: the best of {len(points)}.",
        height=4.4,
        width=6.2,
    )
    axes = made.panels[0]
    z, x, y = (np.array(values) for values in zip(*points, strict=True))
    size = 36 if len(points) <= 300 else 9
    cloud = axes.scatter(
        x,
        y,
        c=z * metric.factor,
        edgecolors=GREY,
        cmap=_colours(digest),
        s=size,
        linewidths=0.5,
    )
    axes.plot(
        x[-1:],
        y[-1:],
        marker="o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=VERMILLION,
        markeredgewidth=2.5,
        linestyle="none",
    )
    set_axis(axes, columns)
    set_axis(axes, rows, "y")
    axes.set_xlabel(label(names[columns.path], 40))
    axes.set_ylabel(label(names[rows.path], 40))
    colour_bar(made.figure, cloud, [axes], metric.label)
    return made.figure


def _colours(digest: RunDigest) -> Colormap:
    """Dark is better; white is a cell without a finished trial."""
    return matrix_colours(white=False, dark_is_low=digest.plan.mode == "min")
