"""The one look of all pictures: colours, markers and type.

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
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from features.cache import cache_root

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap

DPI = 150
WIDTH = 7.0
"""Of a sheet, in inches."""

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY, BLACK = "#CC79A7", "#E69F00", "#56B4E9", "#000000"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""For categories; Okabe and Ito's yellow is left out, it is too pale for a line on white."""

MARKERS = ("o", "s", "^", "D", "v", "<", ">", "p", "h", "*")
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


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in points."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    renderer: Any = RendererAgg(8, 8, 72)  # type: ignore[no-untyped-call]
    properties = FontProperties(size=size, weight=weight)
    width, _, _ = renderer.get_text_width_height_descent(text, properties, ismath=False)
    return float(width)


def matrix_colours(*, white: bool = True, dark_is_low: bool = False) -> Colormap:
    """The colour map of matrices.

    Args:
        white: begin with white, for nothing; otherwise white is left for what is not there.
        dark_is_low: turn it around.
    """
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("matrix", list(_MATRIX))
    if not white:
        tinted = [colours(share) for share in np.linspace(0.12, 1.0, 64)]
        colours = LinearSegmentedColormap.from_list("tinted", tinted)
    return colours.reversed() if dark_is_low else colours


def ink_on(image: ScalarMappable, value: float) -> str:
    """Black or white, whichever can be read better on the colour of a value (WCAG 2 contrast)."""
    red, green, blue, _ = np.asarray(image.to_rgba(np.array([value])))[0]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"
