"""Near duplicates: clips that share a stretch of audio, found by their fingerprints.

Clips that have words in common at one distance in time, by an index of the words' parts, are
compared word by word at that distance: the work grows with what is found, not with the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from features.clips import Clip
from features.fingerprint import BITS, Fingerprint

_KEYS = (0x0007FFFF, 0x01FFFFC0, 0xFFFFE000)
"""Bits of a word that are looked up as a whole: a copy has errors, but not in all of them."""

_NEIGHBOURS = 64
"""Equal keys beside each one that are looked at, where a sound has very many."""

_FEWEST_HITS = 3
"""Equal keys at one distance, one step more or less, that make a comparison worth while."""

_MOST_DISTANCES = 4
"""Distances at which two clips are compared: those with the most equal keys."""

_EXPECTED = 0.85
"""Share of equal bits in a copy; half of them are equal by chance."""

_EVIDENCE = 350.0
"""Binary logarithm of the likelihood ratio, copy against chance, from which on two stretches are
called near-identical. Bits depend on each other, so that it has to be that much."""

_FEWEST_WORDS = 12
"""Different ones in a stretch: a click in silence has two or three."""

_LEAST_VARIETY = 0.5
"""Share of different words in a stretch: a steady tone repeats a few, any sound of nature none."""


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two clips with a stretch of near-identical audio.

    Attributes:
        first: index into `Dataset.clips`.
        second: index of a later one.
        similarity: share of equal bits in their fingerprints along the stretch, at most 1; by
            chance it would be a half.
    """

    first: int
    second: int
    similarity: float


def near_duplicates(
    clips: Sequence[Clip], fingerprints: Mapping[int, Fingerprint]
) -> tuple[NearDuplicate, ...]:
    """The pairs of clips whose audio is near-identical, in order.

    A re-encoded, resampled, louder, softer, shifted or cut copy is found, also of a part, if
    about a second of changing sound is left. Byte-identical clips count once, as the first of
    them.

    Args:
        clips: of the dataset.
        fingerprints: by index of the clip; clips without one are not compared.
    """
    distinct = {clips[i].sha256: i for i in sorted(fingerprints, reverse=True)}
    indices = sorted(distinct.values())
    if not indices:
        return ()
    prints = [fingerprints[i] for i in indices]
    found = []
    for first, second, distances in _candidates(prints):
        best = max(_compared(prints[first], prints[second], d) for d in distances)
        if best.evidence >= _EVIDENCE:
            found.append(NearDuplicate(indices[first], indices[second], best.similarity))
    return tuple(found)


def _candidates(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, list[int]]]:
    """Pairs with common keys, and the distances in steps at which they have most of them.

    At distance `d` word `i` of the first belongs to word `i + d` of the second.
    """
    words = _Words.of(prints)
    longest = int(words.steps.max(initial=-1)) + 1
    # Distances of two pairs are never neighbours.
    span = 2 * longest + 2
    hits = np.concatenate([_hits(words, key, len(prints), span) for key in _KEYS])
    codes, counts = np.unique(hits, return_counts=True)
    # The steps of a copy may lie between those of the original.
    near = counts.copy()
    (before,) = np.nonzero(np.diff(codes) == 1)
    near[before + 1] += counts[before]
    near[before] += counts[before + 1]
    kept = near >= _FEWEST_HITS
    pairs, places = np.divmod(codes[kept], span)
    rows = zip(pairs.tolist(), places.tolist(), near[kept].tolist(), strict=True)
    for pair, group in groupby(rows, key=lambda row: row[0]):
        ranked = sorted(group, key=lambda row: -row[2])
        distances = [place - longest for _, place, _ in ranked[:_MOST_DISTANCES]]
        yield *divmod(pair, len(prints)), distances


@dataclass(frozen=True, slots=True)
class _Words:
    """All words of all clips, in order: of each its clip, its step, whether it is heard."""

    words: NDArray[np.uint32]
    owners: NDArray[np.int64]
    steps: NDArray[np.int64]
    heard: NDArray[np.bool_]

    @classmethod
    def of(cls, prints: Sequence[Fingerprint]) -> _Words:
        lengths = np.array([len(mark.words) for mark in prints])
        owners = np.repeat(np.arange(len(prints)), lengths)
        starts = np.cumsum(lengths) - lengths
        return cls(
            np.concatenate([mark.words for mark in prints]),
            owners,
            np.arange(len(owners)) - starts[owners],
            np.concatenate([mark.heard for mark in prints]),
        )


def _hits(words: _Words, key: int, clips: int, span: int) -> NDArray[np.int64]:
    """Equal keys in two clips, `int64 [n]`: a number for first, second and distance.

    It is `(first * clips + second) * span + distance + span / 2 - 1`.
    """
    keys, places = _index(words, key)
    owners, steps = words.owners[places], words.steps[places]
    found = [np.zeros(0, np.int64)]
    for apart in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
        equal = keys[apart:] == keys[:-apart]
        if not equal.any():
            break
        (here,) = np.nonzero(equal & (owners[apart:] != owners[:-apart]))
        there = here + apart
        # Equal keys are in the order of the clips.
        pair = owners[here] * clips + owners[there]
        found.append(pair * span + steps[there] - steps[here] + span // 2 - 1)
    return np.concatenate(found)


def _index(words: _Words, key: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Every key that is heard, and its place among the words; sorted by key, then place.

    A key that stays the same from step to step counts once.
    """
    keys = words.words & np.uint32(key)
    new = np.ones(len(keys), np.bool_)
    new[1:] = (keys[1:] != keys[:-1]) | (words.owners[1:] != words.owners[:-1])
    (places,) = np.nonzero(words.heard & new)
    # As one number each: sorted in a fraction of the time that an order takes.
    both = keys[places].astype(np.uint64) << np.uint64(32) | places.astype(np.uint64)
    both.sort()
    return both >> np.uint64(32), (both & np.uint64(0xFFFFFFFF)).astype(np.int64)


@dataclass(frozen=True, slots=True, order=True)
class _Stretch:
    """The stretch that two clips most likely share at a distance.

    Attributes:
        evidence: binary logarithm of the likelihood ratio; 0 where it is of no worth.
        similarity: share of equal bits.
    """

    evidence: float
    similarity: float


def _compared(first: Fingerprint, second: Fingerprint, distance: int) -> _Stretch:
    """The stretch of most evidence at a distance in steps, or half a step less or more."""
    return max(_at(first, second, distance, distance + more) for more in (-1, 0, 1))


def _at(first: Fingerprint, second: Fingerprint, distance: int, other: int) -> _Stretch:
    """The stretch of most evidence where words of the first lie between two of the second.

    Bits that differ between the two say nothing of what is between them, and do not count.
    """
    begin = max(0, -distance, -other)
    end = min(len(first.words), len(second.words) - max(distance, other))
    own, one, two = (slice(begin + d, end + d) for d in (0, distance, other))
    words = first.words[own]
    unknown = second.words[one] ^ second.words[two]
    heard = first.heard[own] & second.heard[one] & second.heard[two]
    unequal = np.where(heard, _ones((words ^ second.words[one]) & ~unknown), 0)
    equal = np.where(heard, BITS - _ones(unknown), 0) - unequal
    gain = equal * np.log2(2 * _EXPECTED) + unequal * np.log2(2 - 2 * _EXPECTED)
    total = np.concatenate([[0.0], np.cumsum(gain)])
    evidence = total - np.minimum.accumulate(total)
    stop = int(evidence.argmax())
    part = slice(int(total[: stop + 1].argmin()), stop)
    told = words[part][heard[part]]
    different = len(np.unique(told))
    if different < max(_FEWEST_WORDS, _LEAST_VARIETY * len(told)):
        return _Stretch(0.0, 0.0)
    same = int(equal[part].sum())
    return _Stretch(float(evidence[stop]), same / (same + int(unequal[part].sum())))


def _ones(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Bits that are set in each word."""
    each = np.ascontiguousarray(words).view(np.uint8).reshape(-1, words.itemsize)
    bits = np.unpackbits(each, axis=1)
    return np.asarray(bits.sum(axis=1), np.int64)
