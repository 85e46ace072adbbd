"""Spectrograms: log-mel bands and their cepstral coefficients, by torchaudio or librosa.

Both backends compute in float64: in float32 a quiet band beside a loud one drowns in the rounding
of the Fourier transform, by 0.002 dB and more. Results are float32.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.spec import Backend, ClipStatisticsSpec, LogMelSpec, MelSpec, MfccSpec

AMIN = 1e-10
"""Power below which a band counts as silent: -100 dB."""


class _Library(Protocol):
    """What a backend's module can do; everything is float64."""

    def power(self, waveform: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
        """Mel bands, `[n_mels, frames]`."""

    def cepstrum(self, decibels: NDArray[np.float64], n_mfcc: int) -> NDArray[np.float64]:
        """The first coefficients of the orthonormal DCT-II over the bands, `[n_mfcc, frames]`."""


def mel_power(waveform: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
    """The power in each band, `float64 [n_mels, frames]`, row 0 the lowest.

    Args:
        waveform: `float32 [spec.samples]`.
        spec: of any kind made from a mel spectrogram.
    """
    return _library(spec.backend).power(waveform, spec)


def log_mel(waveform: NDArray[np.float32], spec: LogMelSpec) -> NDArray[np.float32]:
    """Mel bands in dB with reference 1.0, `float32 [n_mels, frames]`."""
    return _decibels(waveform, spec).astype(np.float32)


def mfcc(waveform: NDArray[np.float32], spec: MfccSpec) -> NDArray[np.float32]:
    """Mel-frequency cepstral coefficients, `float32 [n_mfcc, frames]`."""
    return cepstrum(waveform, spec, spec.n_mfcc).astype(np.float32)


def cepstrum(
    waveform: NDArray[np.float32], spec: MfccSpec | ClipStatisticsSpec, count: int
) -> NDArray[np.float64]:
    """The first mel-frequency cepstral coefficients, from 0 upwards, `float64 [count, frames]`."""
    return _library(spec.backend).cepstrum(_decibels(waveform, spec), count)


def _decibels(
    waveform: NDArray[np.float32], spec: LogMelSpec | MfccSpec | ClipStatisticsSpec
) -> NDArray[np.float64]:
    """Mel bands in dB, none more than `spec.top_db` below the loudest."""
    # Here and not by the backend: torchaudio's takes three times as long over so few numbers.
    scaled = np.log10(np.maximum(mel_power(waveform, spec), AMIN))
    scaled *= 10
    return scaled if spec.top_db is None else np.maximum(scaled, scaled.max() - spec.top_db)


def _library(backend: Backend) -> _Library:
    """Imported when it is asked for: each takes seconds, and librosa no worker may have."""
    if backend == "librosa":
        from features import librosa_backend

        return librosa_backend
    from features import torchaudio_backend

    return torchaudio_backend
