"""The librosa backend of `features.spectrograms`."""

from __future__ import annotations

import warnings

import librosa
import numpy as np
from numpy.typing import NDArray

from features.spec import MelSpec


def power(waveform: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
    """Mel bands, `float64 [n_mels, frames]`."""
    with warnings.catch_warnings():
        # Of empty bands the plan has warned, once and by name.
        warnings.filterwarnings("ignore", "Empty filters", UserWarning)
        bands = librosa.feature.melspectrogram(
            y=waveform.astype(np.float64),
            sr=spec.sample_rate,
            n_fft=spec.n_fft,
            hop_length=spec.hop_length,
            n_mels=spec.n_mels,
            fmin=spec.f_min,
            fmax=spec.f_max,
            power=2.0,
            dtype=np.float64,
        )
    return np.asarray(bands)


def cepstrum(decibels: NDArray[np.float64], n_mfcc: int) -> NDArray[np.float64]:
    """The first coefficients of the orthonormal DCT-II over the bands, `[n_mfcc, frames]`."""
    return np.asarray(librosa.feature.mfcc(S=decibels, n_mfcc=n_mfcc, dct_type=2, norm="ortho"))
