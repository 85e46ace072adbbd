"""From a waveform to an array: one function a kind of features."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.audio import BadClip
from features.spec import FeatureSpec, LogMelSpec, WaveformSpec

if TYPE_CHECKING:
    import torch

EXTRACTOR_VERSION = 1
"""Part of every cache key; raised when the same parameters come to give other arrays."""

_AMIN = 1e-10
"""Power below which a band counts as silent: -100 dB."""

Array = NDArray[np.float32]


def extract(waveform: Array, spec: FeatureSpec) -> Array:
    """The features of one clip.

    Args:
        waveform: `float32 [spec.samples]`, mono, at `spec.sample_rate`.
        spec: kind and parameters.

    Returns:
        `float32 [c, t]` with the shape `spec.shape`; may be a read-only view of the waveform.

    Raises:
        BadClip: NaN or infinite values come out.
        ValueError: the waveform has another length.
    """
    if waveform.shape != (spec.samples,):
        raise ValueError(f"a waveform of {spec.samples} samples is needed, not {waveform.shape}")
    array = _KINDS[spec.kind](waveform, spec)
    if not np.isfinite(array).all():
        raise BadClip("NaN or infinite features")
    return array


def _waveform(waveform: Array, spec: WaveformSpec) -> Array:
    """Windows as channels, `[windows, samples in a window]`."""
    length, hop = spec.window_samples
    return np.lib.stride_tricks.sliding_window_view(waveform, length)[::hop]


def _log_mel(waveform: Array, spec: LogMelSpec) -> Array:
    """Mel bands in dB with reference 1.0, `[n_mels, frames]`."""
    return _BACKENDS[spec.backend](waveform, spec)


def _torchaudio_log_mel(waveform: Array, spec: LogMelSpec) -> Array:
    import torch

    with torch.inference_mode():
        # A copy, as torch warns of arrays that it must not write to.
        decibels = _torchaudio_transform(spec)(torch.tensor(waveform))
    return np.asarray(decibels.numpy(), np.float32)


@lru_cache(maxsize=16)
def _torchaudio_transform(spec: LogMelSpec) -> torch.nn.Module:
    import torch
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    mel = MelSpectrogram(
        sample_rate=spec.sample_rate,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
        f_min=spec.f_min,
        f_max=spec.f_max,
        power=2.0,
        # What librosa does by default; torchaudio's own defaults differ in all three.
        norm="slaney",
        mel_scale="slaney",
        pad_mode="constant",
    )
    return torch.nn.Sequential(mel, AmplitudeToDB("power", top_db=spec.top_db))


def _librosa_log_mel(waveform: Array, spec: LogMelSpec) -> Array:
    import librosa

    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
        fmin=spec.f_min,
        fmax=spec.f_max,
        power=2.0,
    )
    return np.asarray(librosa.power_to_db(mel, ref=1.0, amin=_AMIN, top_db=spec.top_db), np.float32)


_KINDS: dict[str, Callable[[Array, Any], Array]] = {
    "waveform": _waveform,
    "log_mel": _log_mel,
}

_BACKENDS: dict[str, Callable[[Array, LogMelSpec], Array]] = {
    "torchaudio": _torchaudio_log_mel,
    "librosa": _librosa_log_mel,
}
