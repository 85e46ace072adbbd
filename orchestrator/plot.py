"""Plot: one picture of a run directory, as the report shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture.

    Attributes:
        path: the PNG file below `RUN_DIR/plots`, absolute.
        section: the heading under which it stands, equal for plots that belong together.
        title: one line, unique in its section.
        description: what it shows in a sentence, also for those who cannot see it.
    """

    path: Path
    section: str
    title: str
    description: str
