"""A recording: an audio file of any length, and the features of each window of it.

What a window is to a model is what a clip was in training: decoded, mixed down, resampled, scaled
and made into features by the same functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.arrays import FeatureArray
from features.audio import decode, fit_length, resample, scale
from features.extract import extract
from features.spec import FeatureSpec

_REST = 0.1
"""Share of a window: where no more than that of a file is left behind its last window, there is no
further one. A file may be some samples longer than it is meant to be."""


@dataclass(frozen=True)
class Window:
    """A part of a recording.

    Attributes:
        start: its first sample.
        stop: the sample after its last one.
    """

    start: int
    stop: int


@dataclass(frozen=True)
class Recording:
    """A file's sound as a model's features need it.

    Attributes:
        waveform: `float32 [samples]`, mono, at `spec.sample_rate`, scaled as a whole as
            `spec.normalize` says.
        spec: of the features.
    """

    waveform: NDArray[np.float32]
    spec: FeatureSpec

    @classmethod
    def read(cls, path: Path, spec: FeatureSpec) -> Recording:
        """Decode a file, whatever its extension says.

        Raises:
            BadClip: it cannot be used.
            OSError: it cannot be read.
        """
        with path.open("rb", buffering=0) as file:
            waveform = resample(*decode(file.readall(), file), spec.sample_rate)
        return cls(scale(waveform, spec.normalize), spec)

    @property
    def seconds(self) -> float:
        """Length of the file."""
        return len(self.waveform) / self.spec.sample_rate

    def windows(self, hop: float) -> list[Window]:
        """Windows of `spec.seconds` from the start on; of a shorter file one that holds it all.

        The last one ends with the file, closer to the one before than the others if need be.

        Args:
            hop: seconds between the starts of two windows, more than 0.
        """
        length, total = self.spec.samples, len(self.waveform)
        if total <= length:
            return [Window(0, total)]
        step = max(1, round(hop * self.spec.sample_rate))
        starts = list(range(0, total - length + 1, step))
        if total - length - starts[-1] > _REST * length:
            starts.append(total - length)
        return [Window(start, start + length) for start in starts]

    def features(self, window: Window) -> FeatureArray:
        """The features of a window as they are stored, of `spec.stored_shape`.

        Raises:
            BadClip: NaN or infinite values come out.
        """
        part = self.waveform[window.start : window.stop]
        return extract(fit_length(part, self.spec.samples, self.spec.fit), self.spec)
