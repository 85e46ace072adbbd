"""Fingerprints of audio: a few bits a time step that outlive encoding, resampling and gain.

After J. Haitsma and T. Kalker: A Highly Robust Audio Fingerprinting System, ISMIR 2002. A bit says
whether the difference in energy between two neighbouring bands grows. Theirs is of windows of 0.37
s; here it is between the eighths of a second before and after a time step, whose energies are sums
over short windows: a twentieth of the work, and a copy whose steps fall between those of the
original differs little more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

FINGERPRINT_VERSION = 2
"""Part of every cache key; raised when the same audio comes to give other near duplicates."""

STEP = 0.024
"""Seconds from one word to the next."""

BITS = 32
"""Of a word: one for each two neighbouring bands."""

LOWEST_RATE = 5500
"""Hz; audio at a lower one lacks the upper bands and has no fingerprint."""

_HIGH_RATE = 22_050
"""Hz; what lies between the bands and a higher one is far from both, and little."""

_WINDOW = 0.0464
"""Seconds of a window (Hann)."""

_SIDE = 5
"""Steps before and after a word that it compares."""

_LOWEST, _HIGHEST = 250.0, 2600.0
"""Hz; bands are equally wide on the mel scale."""

_SILENT = 1e-9
"""Mean square of the bands' sound, full scale being 1, that counts as silence: -90 dB."""

_INAUDIBLE = 1e-5
"""Energy beside that of the clip's loudest step that counts as silence, too: -50 dB."""

_BLOCK = 128
"""Windows that are transformed at a time: what a processor's cache holds."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies a clip's sound.

    Attributes:
        words: `uint32 [t]`, one each `STEP` seconds.
        heard: `bool [t]`; a word of silence says nothing.
    """

    words: NDArray[np.uint32]
    heard: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lowered:
    """A waveform at the low rate that fingerprints are made at.

    Attributes:
        samples: `float32 [samples]`, mono.
        rate: Hz; below `LOWEST_RATE` only where the waveform's own is.
    """

    samples: NDArray[np.float32]
    rate: float


def lowered(waveform: NDArray[np.float32], rate: int) -> Lowered:
    """The waveform `float32 [samples]` at a half, a quarter... of its rate, Hz."""
    taps = _taps(rate)
    parts, step = taps.shape
    if step == 1:
        return Lowered(waveform, rate)
    # A product of matrices takes a fifth of the time of a convolution; column by column it is what
    # the next samples add to an output and to those before.
    blocks = len(waveform) // step
    products = taps @ waveform[: blocks * step].reshape(blocks, step).T
    count = max(0, blocks - parts + 1)
    samples = products[0, :count].copy()
    for part in range(1, parts):
        samples += products[part, part : part + count]
    return Lowered(samples, rate / step)


def fingerprint(sound: Lowered) -> Fingerprint:
    """The fingerprint of a lowered waveform.

    1. Of a silent clip no word is heard; of a constant, only those at its ends.
    2. Below `LOWEST_RATE` there are no words.
    """
    if sound.rate < LOWEST_RATE:
        return Fingerprint(np.zeros(0, np.uint32), np.zeros(0, np.bool_))
    energies = _energies(sound)
    # Silence before and after.
    sums = np.zeros((len(energies) + 2 * _SIDE, BITS + 1))
    np.cumsum(energies, axis=0, out=sums[_SIDE:-_SIDE])
    sums[-_SIDE:] = sums[-_SIDE - 1]
    sides = sums[_SIDE:] - sums[:-_SIDE]
    before, after = sides[:-_SIDE], sides[_SIDE:]
    growth = after - before
    bits = growth[:, :-1] > growth[:, 1:]
    words = np.packbits(bits, axis=1, bitorder="little").view("<u4")[:, 0].astype(np.uint32)
    total = (before + after).sum(axis=1)
    heard = total > max(_SILENT * 2 * _SIDE, _INAUDIBLE * float(total.max()))
    return Fingerprint(words, heard)


@cache
def _taps(rate: float) -> NDArray[np.float32]:
    """What a sample weighs in an output, `float32 [parts, step]`: that of its block, the last...

    The filter is short, as a better one would cost more than all that follows: some of the sound
    above the bands comes through, and does so in both copies of a recording.
    """
    taps, step = np.ones(1), 1
    while rate >= 2 * LOWEST_RATE:
        own = [1.0, 3.0, 3.0, 1.0] if rate <= _HIGH_RATE else [1.0, 1.0]
        spread = np.zeros(step * (len(own) - 1) + 1)
        spread[::step] = own
        taps, step, rate = np.convolve(taps, spread / sum(own)), 2 * step, rate / 2
    parts = -(-len(taps) // step)
    padded = np.pad(taps, (0, parts * step - len(taps)))
    return np.ascontiguousarray(padded.reshape(parts, step), np.float32)


def _energies(sound: Lowered) -> NDArray[np.float32]:
    """Mean square in each band and window, `float32 [t, bands]`."""
    window, size, bands = _bank(sound.rate)
    step, length = STEP * sound.rate, len(sound.samples)
    count = int(length / step) + 1
    padded = np.zeros(length + 2 * len(window), np.float32)
    padded[len(window) // 2 :][:length] = sound.samples
    views = np.lib.stride_tricks.sliding_window_view(padded, len(window))
    starts = np.round(np.arange(count) * step).astype(np.int64)
    energies = np.empty((count, BITS + 1), np.float32)
    for first in range(0, count, _BLOCK):
        windows = views[starts[first : first + _BLOCK]]
        windows *= window
        parts = np.fft.rfft(windows, size, axis=1).view(np.float32)
        np.square(parts, out=parts)
        np.matmul(parts, bands, out=energies[first : first + _BLOCK])
    return energies


@cache
def _bank(rate: float) -> tuple[NDArray[np.float32], int, NDArray[np.float32]]:
    """At a rate: the window, the length of the transform, the bands `float32 [2 * bins, bands]`.

    Bands hold what a bin adds to each, once for its real part and once for its imaginary one.
    """
    length = round(_WINDOW * rate)
    window = np.hanning(length)
    window *= np.sqrt(2 / length / np.square(window).sum())
    size = next(n for n in range(length, 2 * length) if _is_smooth(n))
    mel = np.linspace(np.log1p(_LOWEST / 700), np.log1p(_HIGHEST / 700), BITS + 2)
    # A bin reaches from half a bin below its frequency to half a bin above; an edge may cut it.
    edges = np.expm1(mel) * 700 * size / rate + 0.5
    bins = np.arange(size // 2 + 1)[:, None]
    below = np.clip(edges - bins, 0, 1)
    bands = np.repeat(np.diff(below, axis=1), 2, axis=0)
    return window.astype(np.float32), size, bands.astype(np.float32)


def _is_smooth(n: int) -> bool:
    """Whether a transform of this length is fast: no prime factor above 5."""
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1
