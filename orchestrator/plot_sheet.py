"""Sheet: a figure with a heading, panels and a legend, and what panels have in common."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.plot_style import DPI, SMALL, TITLE, WIDTH, text_width

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sheet:
    """A figure with a heading, panels and room for a legend.

    Attributes:
        figure: the whole.
        panels: row by row; as many as were asked for.
    """

    figure: Figure
    panels: tuple[Axes, ...]


@dataclass(frozen=True)
class Legend:
    """What stands below the panels.

    Attributes:
        handles: lines and patches.
        labels: one each.
        title: above them; empty for none.
    """

    handles: Sequence[Artist]
    labels: Sequence[str]
    title: str = ""


def sheet(
    title: str,
    notes: str,
    *,
    panels: int = 1,
    columns: int = 1,
    height: float = 3.2,
    lowest: float = 0.0,
    width: float = WIDTH,
    legend: Legend | None = None,
    share_x: bool = False,
    share_y: bool = False,
) -> Sheet:
    """A sheet with empty panels.

    Args:
        title: bold, above all.
        notes: below it: which split, which folds, how many clips.
        panels: how many.
        columns: at most as many beside each other.
        height: of a row of panels with its labels, inches.
        lowest: what the last row needs beyond that, inches.
        width: of the sheet, inches.
        legend: below the panels.
        share_x: one scale for all.
        share_y: likewise.
    """
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = -(-panels // columns)
    room = 72 * (width - 0.2)
    heading = _wrapped(title, TITLE, "bold", room)
    small = _wrapped(notes, SMALL + 0.5, "normal", room)
    top = 0.1 + 0.235 * len(heading) + 0.175 * len(small) + 0.08
    ncols, bottom = _legend_room(legend, room)
    total = top + rows * height + lowest + bottom
    figure = Figure(figsize=(width, total), dpi=DPI, layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0.008, bottom / total, 0.984, 1 - (top + bottom) / total))  # type: ignore[call-arg]
    x = 0.1 / width
    y = 1 - 0.1 / total
    figure.text(x, y, "\n".join(heading), size=TITLE, weight="bold", va="top")
    y -= 0.235 * len(heading) / total
    figure.text(x, y, "\n".join(small), size=SMALL + 0.5, color="#505050", va="top")
    if legend is not None:
        # matplotlib fills column by column, a reader reads row by row.
        count = len(legend.labels)
        order = [i for column in range(ncols) for i in range(column, count, ncols)]
        figure.legend(
            [legend.handles[i] for i in order],
            [legend.labels[i] for i in order],
            loc="lower left",
            bbox_to_anchor=(0.0, 0.0),
            ncols=ncols,
            title=legend.title or None,
            alignment="left",
            borderaxespad=0.3,
            columnspacing=1.4,
            labelspacing=0.35,
        ).set_in_layout(False)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    for spare in axes.flat[panels:]:
        spare.set_visible(False)
    _label_outer_only(list(axes.flat[:panels]), columns, share_x, share_y)
    return Sheet(figure, tuple(axes.flat[:panels]))


def colour_bar(figure: Figure, image: ScalarMappable, axes: Sequence[Axes], words: str) -> None:
    """What the colours mean, beside the panels; not taller than about two of them."""
    rows = len({round(one.get_subplotspec().rowspan.start) for one in axes})  # type: ignore[union-attr]
    shrink = min(0.75, 1.4 / rows)
    bar = figure.colorbar(image, ax=list(axes), shrink=shrink, aspect=26, pad=0.02)
    bar.set_label(words)
    bar.outline.set_visible(False)


def integer_epochs(axes: Axes, last: int) -> None:
    """Whole numbers below, and an axis that one epoch does not make a point of."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    margin = max(0.4, 0.025 * last)
    axes.set_xlim(-margin, last + margin)


def limit_losses(axes: Axes, curves: Sequence[NDArray[np.float64]]) -> None:
    """Limits of a loss axis that one diverging curve does not decide."""
    every = np.concatenate(curves)
    every = every[np.isfinite(every)]
    if not every.size:
        return
    low, high = float(every.min()), float(every.max())
    usual = float(np.percentile(every, 95))
    if high > 5 * usual > 0:
        high = 1.5 * usual
        place = (0.98, 0.96)
        axes.annotate(
            "higher values cut off", place, xycoords="axes fraction", ha="right", va="top"
        )
    margin = 0.06 * (high - low) or 0.05
    axes.set_ylim(max(0.0, low - margin), high + margin)


def limit_accuracies(axes: Axes, curves: Sequence[NDArray[np.float64]]) -> None:
    """Limits of an accuracy axis in percent, within 0 and 100 but for the width of a line."""
    every = np.concatenate(curves)
    every = every[np.isfinite(every)]
    if every.size:
        low, high = float(every.min()), float(every.max())
        margin = max(1.0, 0.06 * (high - low))
        axes.set_ylim(max(-0.5, low - margin), min(101.0, high + margin))


def _wrapped(text: str, size: float, weight: str, room: float) -> list[str]:
    """Lines no wider than `room` points, broken at blanks; a given line break stays."""
    lines = []
    for paragraph in text.splitlines():
        words = paragraph.split()
        while True:
            fit = _fitting(words, size, weight, room)
            lines.append(" ".join(words[:fit]))
            words = words[fit:]
            if not words:
                break
    return lines


def _fitting(words: Sequence[str], size: float, weight: str, room: float) -> int:
    """How many words fit on a line, at least one; few widths are measured, which takes long."""

    def too_wide(count: int) -> bool:
        return text_width(" ".join(words[:count]), size, weight) > room

    return 1 + bisect_left(range(2, len(words) + 1), True, key=too_wide)


def _legend_room(legend: Legend | None, room: float) -> tuple[int, float]:
    """Columns of a legend and the height that it takes, in inches."""
    if legend is None:
        return 1, 0.03
    size = SMALL + 0.5
    widest = max(text_width(text, size) for text in legend.labels) + 4.8 * size
    ncols = max(1, min(len(legend.labels), int(room / widest), 6))
    rows = -(-len(legend.labels) // ncols) + bool(legend.title)
    return ncols, 0.19 * rows + 0.12


def _label_outer_only(panels: list[Axes], columns: int, share_x: bool, share_y: bool) -> None:
    """Tick labels only at the left and, in each column, at the lowest panel."""
    for i, axes in enumerate(panels):
        if share_x:
            axes.tick_params(labelbottom=i + columns >= len(panels))
        if share_y:
            axes.tick_params(labelleft=i % columns == 0)
