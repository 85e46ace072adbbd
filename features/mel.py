"""Mel bands: Slaney's scale, his filters, and the bands that no frequency falls into.

In float64 and without an audio library: torchaudio's own filters are float32 (off by 0.002 dB) and,
for odd rates and windows, misplaced; and a plan must know of empty bands in an instant.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.spec import MelSpec

_HZ_A_MEL = 200 / 3
"""Up to 1 kHz, where the scale is linear."""

_BREAK_HZ, _BREAK_MEL = 1000.0, 15.0
_LOG_STEP = math.log(6.4) / 27
"""Above, where the scale is logarithmic: the growth of a mel."""


def filter_bank(spec: MelSpec) -> NDArray[np.float64]:
    """Triangular filters of equal area, which turn a power spectrum into bands.

    Slaney 1998, "Auditory Toolbox, version 2".

    Args:
        spec: the bands, the rate and the length of the Fourier window.

    Returns:
        `float64 [n_mels, n_fft // 2 + 1]`, 1/Hz.
    """
    edges, bins = _edges(spec), _bins(spec)
    low, centre, high = (e[:, None] for e in (edges[:-2], edges[1:-1], edges[2:]))
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.asarray(np.maximum(0, triangles) * 2 / (high - low))


def empty_bands(spec: MelSpec) -> int:
    """How many bands are so narrow that no frequency of the spectrum falls between their edges.

    Such a band is silent whatever the sound.
    """
    edges, bins = _edges(spec), _bins(spec)
    first = np.searchsorted(bins, edges[:-2], side="right")
    after = np.searchsorted(bins, edges[2:], side="left")
    return int((first >= after).sum())


def _edges(spec: MelSpec) -> NDArray[np.float64]:
    """`float64 [n_mels + 2]`, Hz: each band reaches from one over the next to the one after."""
    f_max = spec.sample_rate / 2 if spec.f_max is None else spec.f_max
    return _hertz(np.linspace(_mel(spec.f_min), _mel(f_max), spec.n_mels + 2))


def _bins(spec: MelSpec) -> NDArray[np.float64]:
    """The frequencies of the spectrum, `float64 [n_fft // 2 + 1]`, Hz."""
    return np.asarray(np.fft.rfftfreq(spec.n_fft, 1 / spec.sample_rate), np.float64)


def _mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz / _HZ_A_MEL
    return _BREAK_MEL + math.log(hertz / _BREAK_HZ) / _LOG_STEP


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.asarray(np.where(mel < _BREAK_MEL, _HZ_A_MEL * mel, above), np.float64)
