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

FINGERPRINT_VERSION = 1
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


def fingerprint(waveform: NDArray[np.float32], rate: int) -> Fingerprint:
    """The fingerprint of a waveform `float32 [samples]`, mono, at its own rate, Hz.

    1. Of a silent clip no word is heard; of a constant, only those at its ends.
    2. Below `LOWEST_RATE` there are no words.
    """
    if rate < LOWEST_RATE:
        return Fingerprint(np.zeros(0, np.uint32), np.zeros(0, np.bool_))
    energies = _energies(*_decimated(waveform, rate))
    # Silence before and after.
    sums = np.zeros((len(energies) + 2 * _SIDE, BITS + 1))
    np.cumsum(energies, axis=0, out=sums[_SIDE:-_SIDE])
    sums[-_SIDE:] = sums[-_SIDE - 1]
    sides = sums[_SIDE:] - sums[:-_SIDE]
    before, after = sides[:-_SIDE], sides[_SIDE:]
    growth = after - before
    bits = growth[:, :-1] > growth[:, 1:]
    words = np.packbits(bits, axis=1, bitorder="little").view("<u4")[:, 0].astype(np.uint32)
    total = (sums[2 * _SIDE :] - sums[: -2 * _SIDE]).sum(axis=1)
    heard = total > max(_SILENT * 2 * _SIDE, _INAUDIBLE * float(total.max()))
    return Fingerprint(words, heard)


def _decimated(waveform: NDArray[np.float32], rate: float) -> tuple[NDArray[np.float32], float]:
    """The waveform at a half, a quarter... of its rate, but at least `LOWEST_RATE`.

    The filters are short, as a better one would cost more than all that follows: some of the sound
    above the bands comes through, and does so in both copies of a recording.
    """
    gain = 1.0
    while rate >= 2 * LOWEST_RATE and len(waveform) > 3:
        count = (len(waveform) - 2) // 2
        first, second, third, last = (waveform[i : i + 2 * count - 1 : 2] for i in range(4))
        half = second + third
        gain *= 2
        if rate <= _HIGH_RATE:
            half *= 3
            half += first
            half += last
            gain *= 4
        waveform, rate = half, rate / 2
    return waveform * np.float32(1 / gain), rate


def _energies(waveform: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """Mean square in each band and window, `float32 [t, bands]`."""
    window, size, edges = _bank(rate)
    count = int(len(waveform) / (STEP * rate)) + 1
    padded = np.pad(waveform, (len(window) // 2, len(window)))
    views = np.lib.stride_tricks.sliding_window_view(padded, len(window))
    starts = np.round(np.arange(count) * (STEP * rate)).astype(np.int64)
    energies = np.empty((count, BITS + 1), np.float32)
    for first in range(0, count, _BLOCK):
        block = slice(first, first + _BLOCK)
        energies[block] = _banded(views[starts[block]] * window, size, edges)
    return energies


@cache
def _bank(rate: float) -> tuple[NDArray[np.float32], int, NDArray[np.float64]]:
    """At a rate: the window, the length of the transform, the bands' edges in its bins."""
    length = round(_WINDOW * rate)
    window = np.hanning(length)
    window *= np.sqrt(2 / length / np.square(window).sum())
    size = next(n for n in range(length, 2 * length) if _is_smooth(n))
    mel = np.linspace(np.log1p(_LOWEST / 700), np.log1p(_HIGHEST / 700), BITS + 2)
    # A bin reaches from half a bin below its frequency to half a bin above.
    return window.astype(np.float32), size, np.expm1(mel) * 700 * size / rate + 0.5


def _is_smooth(n: int) -> bool:
    """Whether a transform of this length is fast: no prime factor above 5."""
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def _banded(
    windows: NDArray[np.float32], size: int, edges: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Energy in the bands between the edges, which may cut a bin in two."""
    spectra = np.fft.rfft(windows, size, axis=1)
    power = np.square(spectra.real)
    power += np.square(spectra.imag)
    bins = edges.astype(np.int64)
    cut = power[:, bins] * (edges - bins).astype(np.float32)
    whole = np.add.reduceat(power, bins, axis=1)[:, :-1]
    return np.asarray(whole - cut[:, :-1] + cut[:, 1:], np.float32)
