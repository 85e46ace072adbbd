"""The embedded dataset: ten sound classes made by rule, the same on every machine.

Five folds with eight clips of each class, 400 in all, about two seconds each at 16 kHz. Clips of
a class differ in pitch, rate, timing, length and level; a coloured background noise and now and
then a short foreign sound keep the classes from being told apart by loudness or length alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from features.clips import Clip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLASSES = (
    "noise_bursts",
    "chirp_up",
    "chirp_down",
    "ticks",
    "rumble",
    "wind",
    "crackle",
    "pluck",
    "siren",
    "noise_sweep",
)
"""In label order."""

SYNTHETIC_VERSION = 1
"""Part of every clip's content hash; raised when the same path comes to sound differently."""

FOLDS = (1, 2, 3, 4, 5)
CLIPS_PER_CLASS_AND_FOLD = 8


def clips() -> tuple[Clip, ...]:
    """The 400 clips sorted by path, e.g. `fold3/chirp_up-05`; nothing is rendered."""
    made = [
        Clip(path, label, fold, source=path, sha256=_digest(path).hex())
        for fold in FOLDS
        for label, name in enumerate(CLASSES)
        for index in range(1, CLIPS_PER_CLASS_AND_FOLD + 1)
        for path in [f"fold{fold}/{name}-{index:02d}"]
    ]
    return tuple(sorted(made, key=lambda clip: clip.path))


def render(path: str) -> tuple[NDArray[np.float32], int]:
    """The sound of one clip.

    Args:
        path: a `Clip.path` of this dataset.

    Returns:
        The waveform, `float32 [samples]`, mono, -1..1, 1.5 to 2.5 s long; and its rate, Hz.

    Raises:
        KeyError: there is no such class.
    """
    import numpy as np

    from features import sounds

    name = path.rpartition("/")[2].rpartition("-")[0]
    generator = np.random.default_rng(list(_digest(path)))
    return sounds.make(name, generator), sounds.RATE


def _digest(path: str) -> bytes:
    return hashlib.sha256(f"foldgrid synthetic {SYNTHETIC_VERSION} {path}".encode()).digest()
