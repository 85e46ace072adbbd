"""From a waveform to an array: one function a kind of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.arrays import FeatureArray
from features.audio import BadClip
from features.images import as_bytes, mel_image
from features.spec import FeatureSpec, MelImageSpec, WaveformSpec
from features.spectrograms import log_mel, mfcc
from features.statistics import clip_statistics

EXTRACTOR_VERSION = 4
"""Part of every cache key; raised when the same parameters come to give other arrays."""


def extract(waveform: NDArray[np.float32], spec: FeatureSpec) -> FeatureArray:
    """The features of one clip as they are stored.

    Args:
        waveform: `float32 [spec.samples]`, mono, at `spec.sample_rate`.
        spec: kind and parameters.

    Returns:
        An array of `spec.stored_dtype` with the shape `spec.stored_shape`; may be a read-only
        view of the waveform.

    Raises:
        BadClip: NaN or infinite values come out.
        ValueError: the waveform has another length.
    """
    if waveform.shape != (spec.samples,):
        raise ValueError(f"a waveform of {spec.samples} samples is needed, not {waveform.shape}")
    # Before the features are made: an integer type has no NaN to show that one went in.
    if not np.isfinite(waveform).all():
        raise BadClip("NaN or infinite samples")
    array = _KINDS[spec.kind](waveform, spec)
    if spec.kind == "waveform":
        # Its values are those that have just been looked at.
        return array
    if not np.isfinite(array).all():
        raise BadClip("NaN or infinite features")
    return array


def _waveform(waveform: NDArray[np.float32], spec: WaveformSpec) -> NDArray[np.float32]:
    """Windows as channels, `[windows, samples in a window]`."""
    length, hop = spec.window_samples
    return np.lib.stride_tricks.sliding_window_view(waveform, length)[::hop]


def _mel_image(waveform: NDArray[np.float32], spec: MelImageSpec) -> NDArray[np.uint8]:
    """A picture of one channel, `uint8 [1, size, size]`."""
    return as_bytes(mel_image(waveform, spec))


_KINDS: dict[str, Callable[[NDArray[np.float32], Any], FeatureArray]] = {
    "waveform": _waveform,
    "log_mel": log_mel,
    "mfcc": mfcc,
    "mel_image": _mel_image,
    "clip_statistics": clip_statistics,
}
