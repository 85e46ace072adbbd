"""All configurations' learning curves in one picture: the mean over folds and a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.fold_names import FoldNames
from orchestrator.metric_axis import MetricAxis
from orchestrator.plot_folder import PlotFolder
from orchestrator.plot_sheet import Legend, integer_epochs, limit_losses, sheet
from orchestrator.plot_style import COLOURS, DASHES, MARKERS, PALE
from orchestrator.run_digest import ConfigurationRun, Floats, Quantity, RunDigest, Split

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 8
"""Configurations with a colour and a name, the best ones; the others are pale."""

BANDS = 3
"""Configurations with a band, where there are more than twice as many."""

_PANELS: tuple[tuple[Split, Quantity, str], ...] = (
    ("train", "loss", "training loss per clip"),
    ("train", "accuracy", "training accuracy (%)"),
    ("val", "loss", "validation loss per clip"),
    ("val", "accuracy", "validation accuracy (%)"),
)


@dataclass(frozen=True)
class MeanCurve:
    """A curve over the epochs that every fold has reached.

    Attributes:
        epochs: their numbers.
        mean: over folds and seeds.
        std: likewise, ddof 0.
    """

    epochs: Floats
    mean: Floats
    std: Floats


def mean_curve(run: ConfigurationRun, split: Split, quantity: Quantity) -> MeanCurve:
    """The mean over the finished folds (and seeds) of a configuration."""
    length = min(len(one.epochs) for one in run.curves)
    values = np.stack([one.curve(split, quantity)[:length] for one in run.curves])
    epochs = run.curves[0].epochs[:length].astype(np.float64)
    return MeanCurve(epochs, values.mean(axis=0), values.std(axis=0))


def draw_configuration_curves(
    folder: PlotFolder,
    digest: RunDigest,
    runs: Sequence[ConfigurationRun],
    count: int,
    name: str = "",
) -> None:
    """Training and validation loss and accuracy, one line a configuration.

    Args:
        folder: takes the picture.
        digest: of the run directory.
        runs: the best ones first.
        count: how many configurations there are, those left out included.
        name: of the one model that they are of, in file names; empty for all models.
    """
    models = {run.configuration.model.name for run in runs}
    of = f"{models.pop()}: " if len(models) == 1 else "All models: "
    folder.save(
        _figure(digest, runs, count, of),
        f"configuration_curves_{name}" if name else "configuration_curves",
        "Curves of all configurations",
        f"{of}mean over the folds",
        f"Training and validation loss and accuracy after each epoch as the mean over the folds"
        f" with a band of one standard deviation; the best {min(NAMED, len(runs))} of {count}"
        f" configurations are named, the best is"
        f" {digest.names[runs[0].configuration.id]}.",
    )


def _figure(digest: RunDigest, runs: Sequence[ConfigurationRun], count: int, of: str) -> Figure:
    named = runs[:NAMED]
    made = sheet(
        f"{of}mean curves of {count} configurations" if count > 1 else f"{of}mean curves",
        _notes(digest, runs, count),
        panels=4,
        columns=2,
        height=2.7,
        legend=_legend(digest, runs),
    )
    last = max(int(one.epochs[-1]) for run in runs for one in run.curves)
    for axes, (split, quantity, words) in zip(made.panels, _PANELS, strict=True):
        factor = 100.0 if quantity == "accuracy" else 1.0
        for run in runs[NAMED:]:
            curve = mean_curve(run, split, quantity)
            axes.plot(curve.epochs, curve.mean * factor, color=PALE, linewidth=0.8, zorder=1)
        shown = [mean_curve(run, split, quantity) for run in named]
        for i, curve in reversed(list(enumerate(shown))):
            _draw(axes, curve, i, factor, band=i < _bands(len(named)))
        integer_epochs(axes, last)
        axes.set_title(words)
        if quantity == "loss":
            limit_losses(axes, [c.mean + sign * c.std for c in shown for sign in (-1, 1)])
    for axes in made.panels[2:]:
        axes.set_xlabel("epoch, from 0")
    return made.figure


def _bands(named: int) -> int:
    return named if named <= BANDS + 1 else BANDS


def _draw(axes: Axes, curve: MeanCurve, i: int, factor: float, *, band: bool) -> None:
    colour = COLOURS[i % len(COLOURS)]
    mean, std = curve.mean * factor, curve.std * factor
    if band and len(mean) > 1:
        axes.fill_between(
            curve.epochs, mean - std, mean + std, color=colour, alpha=0.14, linewidth=0, zorder=2
        )
    axes.plot(
        curve.epochs,
        mean,
        color=colour,
        linestyle=DASHES[i % len(DASHES)],
        marker=MARKERS[i],
        markevery=[len(mean) - 1],
        markeredgecolor="white",
        markersize=7,
        zorder=4,
    )


def _legend(digest: RunDigest, runs: Sequence[ConfigurationRun]) -> Legend:
    from matplotlib.lines import Line2D

    named = runs[:NAMED]
    names = (
        digest.names if len({r.configuration.model.name for r in runs}) > 1 else digest.short_names
    )
    metric = MetricAxis(digest.plan.metric)
    handles: list[Artist] = []
    labels = []
    for i, run in enumerate(named):
        handles.append(
            Line2D(
                [],
                [],
                color=COLOURS[i % len(COLOURS)],
                linestyle=DASHES[i % len(DASHES)],
                marker=MARKERS[i],
                markeredgecolor="white",
            )
        )
        score = metric.score(run.scores)
        labels.append(names[run.configuration.id] + (f"  ({score})" if score else ""))
    if len(runs) > NAMED:
        handles.append(Line2D([], [], color=PALE))
        labels.append("other configurations")
    return Legend(handles, labels)


def _notes(digest: RunDigest, runs: Sequence[ConfigurationRun], count: int) -> str:
    metric = MetricAxis(digest.plan.metric)
    folds = len(FoldNames(digest.plan).short)
    repeats = FoldNames(digest.plan).repeats
    over = f"{folds} folds" if folds > 1 else "one fold"
    over += f" x {repeats} seeds" if repeats > 1 else ""
    notes = [f"Line: mean over {over}." if folds * repeats > 1 else "One fold."]
    if folds * repeats > 1:
        drawn = min(NAMED, len(runs))
        whose = "" if _bands(drawn) == drawn else f" of the best {BANDS}"
        notes.append(f"Band{whose}: one standard deviation.")
    if count > 1:
        notes.append(f"Best first by mean {metric.words} (in brackets, with standard deviation).")
    if count > NAMED:
        notes.append(f"The best {NAMED} of {count} are named.")
    if count > len(runs):
        notes.append(f"{count - len(runs)} are left out.")
    if any(not run.scores.complete for run in runs):
        notes.append("Of unfinished configurations: the folds so far.")
    return " ".join(notes)
