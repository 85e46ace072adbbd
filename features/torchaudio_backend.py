"""The torchaudio backend of `features.spectrograms`: the faster one, and the default."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import spectrogram

from features.mel import filter_bank
from features.spec import MelSpec

_BANDS = 16
"""In a group of filters."""


@torch.inference_mode()
def power(waveform: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
    """Mel bands, `float64 [n_mels, frames]`."""
    spectrum = spectrogram(
        # A copy, as torch warns of arrays that it must not write to.
        torch.tensor(waveform, dtype=torch.float64),
        pad=0,
        window=_window(spec.n_fft),
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        win_length=spec.n_fft,
        # Squared below: its own way over the absolute value takes three times as long.
        power=None,
        normalized=False,
        # As librosa does by default.
        pad_mode="constant",
    )
    squared = spectrum.real.square() + spectrum.imag.square()
    bands = [weights @ squared[first:last] for first, last, weights in _filters(spec)]
    return np.asarray(torch.cat(bands).numpy())


@torch.inference_mode()
def cepstrum(decibels: NDArray[np.float64], n_mfcc: int) -> NDArray[np.float64]:
    """The first coefficients of the orthonormal DCT-II over the bands, `[n_mfcc, frames]`."""
    cosines = _cosines(n_mfcc, len(decibels))
    return np.asarray((cosines @ torch.from_numpy(decibels)).numpy())


@lru_cache(maxsize=16)
def _window(n_fft: int) -> torch.Tensor:
    return torch.hann_window(n_fft, dtype=torch.float64)


@lru_cache(maxsize=16)
def _filters(spec: MelSpec) -> tuple[tuple[int, int, torch.Tensor], ...]:
    """Groups of neighbouring bands: the first bin that they weigh, the one after the last, weights.

    Most weights of a filter bank are 0: in groups there are a quarter of them left.
    """
    groups = []
    for weights in torch.tensor(filter_bank(spec)).split(_BANDS):
        bins = weights.any(dim=0).nonzero().flatten().tolist() or [0]
        first, last = bins[0], bins[-1] + 1
        groups.append((first, last, weights[:, first:last].contiguous()))
    return tuple(groups)


@lru_cache(maxsize=16)
def _cosines(n_mfcc: int, n_mels: int) -> torch.Tensor:
    """The orthonormal DCT-II as a matrix, `float64 [n_mfcc, n_mels]`.

    Ahmed, Natarajan and Rao 1974, "Discrete cosine transform". Not torchaudio's `create_dct`,
    which is float32: with 80 bands its coefficients are off by 0.0005.
    """
    order = torch.arange(n_mfcc, dtype=torch.float64)[:, None]
    band = torch.arange(n_mels, dtype=torch.float64)
    cosines = torch.cos(math.pi / n_mels * (band + 0.5) * order) * math.sqrt(2 / n_mels)
    cosines[0] /= math.sqrt(2)
    return cosines
