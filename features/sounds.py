"""The ten sounds of the synthetic dataset, one function each.

Each takes a random generator and a length `n` in samples and gives `float64 [n]` of any level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
"""Hz."""

Signal = NDArray[np.float64]
Generator = np.random.Generator


def make(name: str, rng: Generator) -> NDArray[np.float32]:
    """A sound of the class `name` with background: `float32 [samples]`, mono, -1..1.

    Raises:
        KeyError: there is no such class.
    """
    maker = SOUNDS[name]
    # A round number of samples: Fourier transforms of a prime length take ten times as long.
    n = int(rng.integers(60, 101)) * (RATE // 40)
    sound = _unit_power(maker(rng, n))
    background = _unit_power(_coloured_noise(rng, n, tilt=rng.uniform(0, 1.5)))
    mixed = sound + background * _decibels(-rng.uniform(3, 20))
    if rng.random() < 0.5:
        mixed += _foreign_sound(rng, n) * _decibels(-rng.uniform(3, 12))
    peak = _decibels(-rng.uniform(1, 15))
    return np.asarray(mixed * (peak / np.abs(mixed).max()), np.float32)


def _noise_bursts(rng: Generator, n: int) -> Signal:
    """White noise, switched on and off."""
    out = np.zeros(n)
    for start, length in _events(rng, n, count=(2, 5), seconds=(0.08, 0.3)):
        _add(out, start, rng.standard_normal(length) * _hump(length, attack=0.1))
    return out


def _chirp_up(rng: Generator, n: int) -> Signal:
    """Tones whose pitch rises by one to three octaves, exponentially."""
    return _chirps(rng, n, direction=1)


def _chirp_down(rng: Generator, n: int) -> Signal:
    """Tones whose pitch falls by one to three octaves, exponentially."""
    return _chirps(rng, n, direction=-1)


def _ticks(rng: Generator, n: int) -> Signal:
    """Short resonant clicks at a steady rate."""
    out = np.zeros(n)
    length = int(0.03 * RATE)
    period = RATE / rng.uniform(3, 9)
    time = np.arange(length) / RATE
    pitch, decay = rng.uniform(1500, 5000), rng.uniform(150, 500)
    tick = np.sin(2 * np.pi * pitch * time) * np.exp(-decay * time)
    for position in np.arange(rng.uniform(0, period), n, period):
        _add(out, int(position), tick * rng.uniform(0.6, 1.0))
    return out


def _rumble(rng: Generator, n: int) -> Signal:
    """Noise below a few hundred hertz."""
    noise = _band_noise(rng, n, 20, rng.uniform(100, 300))
    return noise * _slow_swell(rng, n, depth=0.5)


def _wind(rng: Generator, n: int) -> Signal:
    """Noise of the middle frequencies that swells and falls slowly."""
    low = rng.uniform(300, 700)
    return _band_noise(rng, n, low, low * rng.uniform(2, 3)) * _slow_swell(rng, n, depth=0.95)


def _crackle(rng: Generator, n: int) -> Signal:
    """Impulses at random times, of very different strengths."""
    out = np.zeros(n)
    length = int(0.01 * RATE)
    for position in rng.integers(0, n, size=int(rng.uniform(15, 50) * n / RATE)):
        decay = np.exp(-np.arange(length) / RATE * rng.uniform(500, 2000))
        _add(out, int(position), rng.standard_normal(length) * decay * rng.exponential())
    return out


def _pluck(rng: Generator, n: int) -> Signal:
    """Struck strings: harmonics that die away, the higher ones sooner."""
    out = np.zeros(n)
    for start, length in _events(rng, n, count=(2, 5), seconds=(0.4, 0.9)):
        time = np.arange(length) / RATE
        pitch, decay = rng.uniform(110, 500), rng.uniform(3, 7)
        for harmonic in range(1, 9):
            wave = np.sin(2 * np.pi * pitch * harmonic * time + rng.uniform(0, 2 * np.pi))
            _add(out, start, wave * np.exp(-decay * harmonic**0.7 * time) / harmonic)
    return out


def _siren(rng: Generator, n: int) -> Signal:
    """A tone with overtones whose pitch swings up and down without a pause."""
    time = np.arange(n) / RATE
    swing = np.sin(2 * np.pi * rng.uniform(1, 4) * time + rng.uniform(0, 2 * np.pi))
    pitch = rng.uniform(500, 1200) * 2 ** (rng.uniform(0.3, 0.7) * swing)
    phase = _phase(pitch)
    return np.asarray(np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(3 * phase))


def _noise_sweep(rng: Generator, n: int) -> Signal:
    """A narrow band of noise that wanders over the frequencies."""
    narrow = _band_noise(rng, n, 0, rng.uniform(100, 250))
    swing = np.cos(2 * np.pi * rng.uniform(0.4, 1.2) * np.arange(n) / RATE + rng.uniform(0, 6.28))
    centre = 2000 * 2 ** (rng.uniform(0.8, 1.5) * swing + rng.uniform(-0.3, 0.3))
    return np.asarray(narrow * np.sin(_phase(centre)))


SOUNDS: dict[str, Callable[[Generator, int], Signal]] = {
    "noise_bursts": _noise_bursts,
    "chirp_up": _chirp_up,
    "chirp_down": _chirp_down,
    "ticks": _ticks,
    "rumble": _rumble,
    "wind": _wind,
    "crackle": _crackle,
    "pluck": _pluck,
    "siren": _siren,
    "noise_sweep": _noise_sweep,
}
"""Every class by name."""


def _chirps(rng: Generator, n: int, direction: int) -> Signal:
    out = np.zeros(n)
    octaves = direction * rng.uniform(1, 3)
    middle = rng.uniform(700, 1800)
    for start, length in _events(rng, n, count=(2, 5), seconds=(0.15, 0.45)):
        position = np.linspace(-0.5, 0.5, length)
        wave = np.sin(_phase(middle * 2 ** (octaves * position)))
        _add(out, start, wave * _hump(length, attack=0.2))
    return out


def _foreign_sound(rng: Generator, n: int) -> Signal:
    """A short beep, thud or hiss, which says nothing of the class; at most 1 in power."""
    out = np.zeros(n)
    length = int(rng.uniform(0.05, 0.25) * RATE)
    beep = np.sin(_phase(np.full(length, rng.uniform(300, 3000))))
    thud = _unit_power(_band_noise(rng, length, 40, 400))
    hiss = rng.standard_normal(length)
    sound = (beep, thud, hiss)[rng.integers(3)]
    _add(out, int(rng.integers(0, n - length)), sound * _hump(length, attack=0.3))
    return out


def _events(
    rng: Generator, n: int, count: tuple[int, int], seconds: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    """Start and length, samples, of events that share the clip's time among them."""
    number = int(rng.integers(count[0], count[1] + 1))
    slot = n / number
    for i in range(number):
        length = int(rng.uniform(*seconds) * RATE)
        yield int(i * slot + rng.uniform(0, max(1.0, slot - length))), length


def _band_noise(rng: Generator, n: int, low: float, high: float) -> Signal:
    """White noise without what lies outside `low` to `high`, Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequencies = np.fft.rfftfreq(n, 1 / RATE)
    return np.fft.irfft(np.where((frequencies >= low) & (frequencies <= high), spectrum, 0), n)


def _coloured_noise(rng: Generator, n: int, tilt: float) -> Signal:
    """Noise whose power falls with the frequency to the power of `tilt`."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequencies = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 20)
    return np.fft.irfft(spectrum * frequencies ** (-tilt / 2), n)


def _slow_swell(rng: Generator, n: int, depth: float) -> Signal:
    """A gain between `1 - depth` and 1 that goes up and down about once a second."""
    rate, phase = rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)
    swing = np.sin(2 * np.pi * rate * np.arange(n) / RATE + phase)
    return np.asarray(1 - depth * (0.5 + 0.5 * swing))


def _hump(length: int, attack: float) -> Signal:
    """A gain that rises over the first `attack` of its length and falls over the rest."""
    position = np.linspace(0, 1, length)
    return np.minimum(position / attack, (1 - position) / (1 - attack))


def _phase(frequency: Signal) -> Signal:
    """Radians of an oscillator with the given frequencies, Hz."""
    return 2 * np.pi * np.cumsum(frequency) / RATE


def _add(out: Signal, start: int, event: Signal) -> None:
    """Mix an event in; what lies beyond the end is lost."""
    kept = event[: len(out) - start]
    out[start : start + len(kept)] += kept


def _unit_power(signal: Signal) -> Signal:
    return np.asarray(signal / np.sqrt(np.mean(signal**2)))


def _decibels(gain: float) -> float:
    return float(10 ** (gain / 20))
