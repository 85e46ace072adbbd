"""PlotFolder: the folder of pictures, written picture by picture and rid of stale ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator import atomic
from orchestrator.errors import InterruptionError
from orchestrator.output_folder import make_folder, remove_stale
from orchestrator.plot import Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class PlotFolder:
    """The folder of pictures, and which of them have been written this time.

    Attributes:
        path: the folder.
        stop: asked before each picture is written.
        plots: in the order in which a reader wants them.
    """

    path: Path
    stop: Callable[[], bool] = lambda: False
    plots: list[Plot] = field(default_factory=list)

    def make(self) -> None:
        """Make the folder.

        Raises:
            RunDirectoryError: it cannot be made.
        """
        make_folder(self.path)

    def save(self, figure: Figure, name: str, section: str, title: str, description: str) -> None:
        """Write one picture in one step; equal figures give equal bytes.

        Args:
            figure: what to write; it can be forgotten afterwards.
            name: of the file, without `.png`.
            section: the heading under which it stands.
            title: one line, unique in its section.
            description: what it shows, in a sentence.

        Raises:
            InterruptionError: it was stopped.
            RunDirectoryError: it cannot be written.
        """
        if self.stop():
            raise InterruptionError("interrupted while pictures were written")
        path = self.path / f"{name}.png"
        atomic.write_bytes(path, _png(figure), durable=False)
        self.plots.append(Plot(path.absolute(), section, title, description))

    def remove_stale(self, *patterns: str) -> None:
        """Remove pictures of these patterns that an earlier state left and this one has not.

        Raises:
            RunDirectoryError: one cannot be removed.
        """
        remove_stale(self.path, patterns, {plot.path.name for plot in self.plots})


def _png(figure: Figure) -> bytes:
    """The figure as a PNG file that names no version, so that it depends on the pixels alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    # `savefig` would draw twice, once for the layout.
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    stream = io.BytesIO()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.save(stream, "PNG", dpi=(figure.dpi, figure.dpi))
    return stream.getvalue()
