"""The one look of all pictures: colours, type, and a sheet with a heading, panels and a legend.

Colours are those of Okabe and Ito (2008), which the colour-blind can tell apart; markers and line
styles tell the same things apart in grey print. Sheets are narrow, so that their type is readable
in a column of print and on a phone.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from features.cache import cache_root

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI = 150
WIDTH = 7.0
"""Of a sheet, in inches."""

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""For categories; Okabe and Ito's yellow is left out, it is too pale for a line on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
LineStyle = Literal["-", "--"] | tuple[float, Sequence[float]]
DASHES: tuple[LineStyle, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
GREY, PALE, INK = "#707070", "#C8C8C8", "#222222"

_MATRIX = ((0.0, "#FFFFFF"), (0.353, SKY), (0.633, BLUE), (1.0, "#00224E"))
"""Colours of matrices, dark is much: their CIE lightness falls evenly from 100 to 14."""

TITLE, TEXT, SMALL = 12.5, 10.5, 9.0
"""Sizes of type in points."""

_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Noto Sans",
)
"""The first one comes with matplotlib; the others are asked for what it lacks."""

_RULES = {
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.titlelocation": "left",
    "axes.labelsize": TEXT,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "xtick.labelsize": SMALL + 0.5,
    "ytick.labelsize": SMALL + 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    # A class may be called `$x$`, and is not mathematics.
    "text.parse_math": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 6.0,
    "legend.fontsize": SMALL + 0.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def load() -> None:
    """Import matplotlib with its list of fonts in foldgrid's cache, unless it has been told where.

    It would write into the home folder otherwise, and without a place to keep the list it would
    look through all fonts of the system in every process.
    """
    if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ:
        importlib.import_module("matplotlib.font_manager")
        return
    os.environ["MPLCONFIGDIR"] = str(cache_root() / "matplotlib")
    try:
        importlib.import_module("matplotlib.font_manager")
    finally:
        del os.environ["MPLCONFIGDIR"]


@contextmanager
def look() -> Iterator[None]:
    """Draw in this look, whatever the user's own settings are; they are left as they were."""
    load()
    import warnings

    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A character that no font has is drawn as a box; that is no news for the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast("Any", _RULES))
        matplotlib.rcParams["font.family"] = [f for f in _FONTS if f in installed]
        yield


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = -(-panels // columns)
    room = 72 * (width - 0.2)
    heading = _wrapped(title, TITLE, "bold", room)
    small = _wrapped(notes, SMALL + 0.5, "normal", room)
    top = 0.1 + 0.235 * len(heading) + 0.175 * len(small) + 0.08
    ncols, bottom = _legend_room(legend, room)
    total = top + rows * height + lowest + bottom
    figure = Figure(figsize=(width, total), layout="constrained")
    FigureCanvasAgg(figure)
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


def label(text: str, longest: int = 60) -> str:
    r"""A name as it can stand in a picture: one line, printable, the middle of a long one cut.

    >>> label("a\nb"), label("_hidden"), label("x" * 20, 9)
    ('a b', ' _hidden', 'xxxx…xxxx')
    """
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[: longest - 1 - half]}…{text[-half:]}"
    # matplotlib leaves names out of legends that begin with an underscore.
    return f" {text}" if text.startswith("_") else text


def matrix_colours(*, dark_is_low: bool = False) -> Colormap:
    """The colour map of matrices; `dark_is_low` turns it around."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("matrix", list(_MATRIX))
    return colours.reversed() if dark_is_low else colours


def ink_on(image: ScalarMappable, value: float) -> str:
    """Black or white, whichever can be read better on the colour of a value (WCAG 2 contrast)."""
    red, green, blue, _ = np.asarray(image.to_rgba(np.array([value])))[0]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


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


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in points."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer: Any = RendererAgg(8, 8, 72)  # type: ignore[no-untyped-call]
    properties = FontProperties(size=size, weight=weight)
    width, _, _ = renderer.get_text_width_height_descent(text, properties, ismath=False)
    return float(width)


def _wrapped(text: str, size: float, weight: str, room: float) -> list[str]:
    """Lines no wider than `room` points, broken at blanks; a given line break stays."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and text_width(longer, size, weight) > room:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


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
