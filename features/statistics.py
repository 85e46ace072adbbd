"""Clip statistics: what a clip sounds like on average and how much that changes, in one vector.

Piczak 2015, "ESC: Dataset for Environmental Sound Classification", https://doi.org/10.1145/2733373.2806390.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.spec import ClipStatisticsSpec
from features.spectrograms import cepstrum


def clip_statistics(waveform: NDArray[np.float32], spec: ClipStatisticsSpec) -> NDArray[np.float32]:
    """Mean and standard deviation (ddof 0) over the frames of a clip.

    Args:
        waveform: `float32 [spec.samples]`.
        spec: which coefficients, of which spectrogram.

    Returns:
        `float32 [2 * n_mfcc + 2]`: the means of coefficients 1 to `n_mfcc`, their deviations,
        mean and deviation of the zero-crossing rate.
    """
    # Coefficient 0 is the level, which says more of the recording than of the sound.
    coefficients = cepstrum(waveform, spec, spec.n_mfcc + 1)[1:]
    rates = zero_crossing_rates(waveform, spec.hop_length)
    statistics = (coefficients.mean(axis=1), coefficients.std(axis=1))
    return np.concatenate([*statistics, [rates.mean(), rates.std()]]).astype(np.float32)


def zero_crossing_rates(waveform: NDArray[np.float32], frame_length: int) -> NDArray[np.float64]:
    """The share of the samples in each frame whose sign is not that of the sample before.

    Frames stand side by side from the first sample on, the last one may be shorter. Zero counts
    as positive, so that silence crosses nothing.

    Args:
        waveform: `float32 [n]`, n at least 1.
        frame_length: samples.

    Returns:
        `float64 [ceil(n / frame_length)]`, 0..1.
    """
    negative = waveform < 0
    crossings = np.concatenate([[False], negative[1:] != negative[:-1]])
    starts = np.arange(0, len(waveform), frame_length)
    lengths = np.diff(np.append(starts, len(waveform)))
    return np.asarray(np.add.reduceat(crossings.astype(np.float64), starts) / lengths)
