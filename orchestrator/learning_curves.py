"""Learning curves: loss and accuracy an epoch, for each fold of a model and over all folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.fold_names import Fold, FoldNames, counted, fold_of
from orchestrator.metric_axis import MetricAxis
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_sheet import Legend, integer_epochs, limit_accuracies, limit_losses, sheet
from orchestrator.plot_style import COLOURS, GREY, MARKERS, LineStyle
from orchestrator.run_digest import (
    ConfigurationRun,
    EpochCurves,
    ModelRuns,
    Quantity,
    RunDigest,
    Split,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SHOWN = 6
"""Configurations in a panel, the best ones; more lines cannot be told apart."""

MOST_PANELS = 12

_LINES: dict[Split, tuple[str, LineStyle]] = {
    "train": ("training (dashed)", "--"),
    "val": ("validation (solid)", "-"),
    "test": ("test (solid)", "-"),
}
_FACTOR: dict[Quantity, float] = {"loss": 1.0, "accuracy": 100.0}
_AXIS: dict[Quantity, str] = {"loss": "loss per clip", "accuracy": "accuracy (%)"}


@dataclass(frozen=True)
class _Picture:
    """What one picture of a model's folds shows."""

    quantity: Quantity
    splits: tuple[Split, ...]

    @property
    def words(self) -> str:
        if self.splits == ("test",):
            return f"test {self.quantity}"
        return f"training and validation {self.quantity}"


def draw_learning_curves(
    folder: PlotFolder, digest: RunDigest, model: ModelRuns, name: str
) -> None:
    """One panel a fold, one line a configuration: losses, accuracies, and the test fold's if known.

    Args:
        folder: takes the pictures.
        digest: of the run directory.
        model: with at least one configuration.
        name: of the model in file names.
    """
    pictures = [_Picture("loss", ("train", "val")), _Picture("accuracy", ("train", "val"))]
    shown = _shown(digest, model)
    if any(np.isfinite(c.curve("test", "loss")).any() for run in shown for c in run.curves):
        pictures += [_Picture("loss", ("test",)), _Picture("accuracy", ("test",))]
    for picture in pictures:
        end = f"test_{picture.quantity}" if picture.splits == ("test",) else picture.quantity
        folds = _by_fold(digest, shown)
        folder.save(
            _fold_figure(digest, model, picture, folds),
            f"learning_curves_{name}_{end}",
            "Learning curves",
            f"{model.name}: {picture.words} of each fold",
            f"{picture.words.capitalize()} after each epoch, one panel for each of"
            f" {counted(len(folds), 'fold')}, one line for each of"
            f" {counted(len(shown), 'configuration')} of {model.name}; a mark stands at the epoch"
            " whose metrics count.",
        )


def _shown(digest: RunDigest, model: ModelRuns) -> list[ConfigurationRun]:
    """The best configurations; in plan order, which is easier to find one's way in, if all are."""
    if model.count > SHOWN:
        return model.runs[:SHOWN]
    place = {c.id: i for i, c in enumerate(digest.plan.configurations)}
    return sorted(model.runs, key=lambda run: place[run.configuration.id])


def _by_fold(
    digest: RunDigest, runs: Sequence[ConfigurationRun]
) -> dict[Fold, list[tuple[int, EpochCurves]]]:
    """The curves of each fold in plan order, each with the number of its configuration."""
    found: dict[Fold, list[tuple[int, EpochCurves]]] = {}
    for i, run in enumerate(runs):
        for curves in run.curves:
            found.setdefault(fold_of(curves.trial), []).append((i, curves))
    return {fold: found[fold] for fold in FoldNames(digest.plan).short if fold in found}


def _fold_figure(
    digest: RunDigest,
    model: ModelRuns,
    picture: _Picture,
    folds: dict[Fold, list[tuple[int, EpochCurves]]],
) -> Figure:
    runs = _shown(digest, model)
    drawn = list(folds.items())[:MOST_PANELS]
    made = sheet(
        f"{model.name}: {picture.words}, each fold",
        _fold_notes(digest, model, picture, len(folds)),
        panels=len(drawn),
        columns=2,
        height=2.35 if len(drawn) > 2 else 2.9,
        legend=_fold_legend(digest, runs, picture),
        share_y=True,
    )
    names = FoldNames(digest.plan)
    for axes, (fold, curves) in zip(made.panels, drawn, strict=True):
        for i, one in curves:
            _draw_trial(axes, one, i, picture)
        of_test = picture.splits == ("test",)
        clips = curves[0][1].clips[of_test]
        naming = names.test if of_test else names.validation
        axes.set_title(f"{naming(fold)}, {clips} clips", size=9.5)
        integer_epochs(axes, max(int(one.epochs[-1]) for _, one in curves))
    values = [
        one.curve(split, picture.quantity) * _FACTOR[picture.quantity]
        for _, curves in drawn
        for _, one in curves
        for split in picture.splits
    ]
    limit = limit_losses if picture.quantity == "loss" else limit_accuracies
    limit(made.panels[0], values)
    for i, axes in enumerate(made.panels):
        _clip_what_is_cut_off(axes)
        if i % 2 == 0:
            axes.set_ylabel(_AXIS[picture.quantity])
        if i + 2 >= len(made.panels):
            axes.set_xlabel("epoch, from 0")
    return made.figure


def _draw_trial(axes: Axes, curves: EpochCurves, i: int, picture: _Picture) -> None:
    factor = _FACTOR[picture.quantity]
    colour = COLOURS[i % len(COLOURS)]
    for split in picture.splits:
        values = curves.curve(split, picture.quantity) * factor
        style = _LINES[split][1]
        width = 1.1 if split == "train" else 1.7
        # One epoch makes no line.
        dot = "." if len(values) == 1 else ""
        axes.plot(curves.epochs, values, color=colour, linestyle=style, linewidth=width, marker=dot)
    axes.plot(
        [curves.chosen],
        [curves.at_chosen(picture.splits[-1], picture.quantity) * factor],
        color=colour,
        marker=MARKERS[i],
        markeredgecolor="white",
        markersize=7,
        linestyle="none",
        zorder=5,
        clip_on=False,
    )


def _clip_what_is_cut_off(axes: Axes) -> None:
    """Marks may reach over the frame, but not lie outside: the layout would make room for them."""
    low, high = axes.get_ylim()
    for line in axes.lines:
        values = np.asarray(line.get_ydata(), dtype=np.float64)
        if not line.get_clip_on() and not ((low <= values) & (values <= high)).all():
            line.set_clip_on(True)


def _fold_legend(digest: RunDigest, runs: Sequence[ConfigurationRun], picture: _Picture) -> Legend:
    from matplotlib.lines import Line2D

    handles: list[Line2D] = []
    labels = []
    for i, run in enumerate(runs):
        handles.append(Line2D([], [], color=COLOURS[i], marker=MARKERS[i], markeredgecolor="white"))
        labels.append(digest.short_names[run.configuration.id])
    for split in picture.splits:
        text, style = _LINES[split]
        handles.append(Line2D([], [], color=GREY, linestyle=style))
        labels.append(text)
    return Legend(handles, labels)


def _fold_notes(digest: RunDigest, model: ModelRuns, picture: _Picture, folds: int) -> str:
    metric = MetricAxis(digest.plan.metric)
    notes = []
    if picture.splits == ("test",):
        notes.append("Held-out TEST fold: only watched, nothing is chosen by it.")
    shown = min(SHOWN, model.count)
    if model.count > shown:
        notes.append(
            f"The best {shown} of {model.count} configurations by mean {metric.words},"
            f" the best first; {model.count - shown} left out."
        )
    notes.append("Mark: the epoch whose metrics count (train.select).")
    repeats = FoldNames(digest.plan).repeats
    if repeats > 1:
        notes.append(f"One line for each of {repeats} seeds.")
    if folds > MOST_PANELS:
        notes.append(f"The first {MOST_PANELS} of {folds} folds.")
    if "train" in picture.splits:
        notes.append("Training values are taken while the weights change, the others after it.")
    return " ".join(notes)
