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

_KEYS = (0x000FFFFF, 0x03FFFFC0, 0xFFFFF000)
"""Bits of a word that are looked up as a whole: a copy has errors, but not in all of them."""

_NEIGHBOURS = 64
"""Equal keys beside each one that are looked at, where a sound has very many."""

_FEWEST_HITS = 3
"""Equal keys at one distance, one step more or less, that make a comparison worth while."""

_MOST_DISTANCES = 4
"""Distances at which two clips are compared: those with the most equal keys."""

_LEAST_SIMILAR = 0.75
"""Share of equal bits in a copy that has suffered; half of them are equal by chance."""

_EVIDENCE = 300.0
"""Binary logarithm of the likelihood ratio, copy against chance, from which on two stretches are
called near-identical. Bits depend on each other, so that it has to be that much."""

_FEWEST_CHANGES = 100
"""Changes of a bit from word to word in a stretch. A single click has few; so has a tone."""


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
    prints = [fingerprints[i] for i in indices]
    found = []
    for first, second, distances in _candidates(prints):
        best = max(_compared(prints[first], prints[second], d) for d in distances)
        if best.evidence >= _EVIDENCE and best.similarity >= _LEAST_SIMILAR:
            found.append(NearDuplicate(indices[first], indices[second], best.similarity))
    return tuple(found)


def _candidates(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, list[int]]]:
    """Pairs with common keys, and the distances in steps at which they have most of them.

    At distance `d` word `i` of the first belongs to word `i + d` of the second.
    """
    longest = max((len(mark.words) for mark in prints), default=0)
    # Distances of two pairs are never neighbours.
    span = 2 * longest + 2
    hits = np.concatenate([_hits(prints, key, span) for key in _KEYS])
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


def _hits(prints: Sequence[Fingerprint], key: int, span: int) -> NDArray[np.int64]:
    """Equal keys in two clips, `int64 [n]`: a number for first, second and distance.

    It is `(first * clips + second) * span + distance + span / 2 - 1`.
    """
    keys, owners, steps = _index(prints, key)
    found = [np.zeros(0, np.int64)]
    for apart in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
        equal = keys[apart:] == keys[:-apart]
        if not equal.any():
            break
        (here,) = np.nonzero(equal & (owners[apart:] != owners[:-apart]))
        there = here + apart
        # Equal keys are in the order of the clips.
        pair = owners[here] * len(prints) + owners[there]
        found.append(pair * span + steps[there] - steps[here] + span // 2 - 1)
    return np.concatenate(found)


def _index(
    prints: Sequence[Fingerprint], key: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """Every key that is heard, its clip and its step; sorted by key, then clip, then step.

    A key that stays the same from step to step counts once.
    """
    keys, owners, steps = [], [], []
    for owner, mark in enumerate(prints):
        words = mark.words & np.uint32(key)
        new = np.ones(len(words), np.bool_)
        new[1:] = words[1:] != words[:-1]
        (own,) = np.nonzero(mark.heard & new)
        keys.append(words[own])
        owners.append(np.full(len(own), owner, np.int64))
        steps.append(own.astype(np.int64))
    every = np.concatenate(keys) if keys else np.zeros(0, np.uint32)
    order = np.argsort(every, kind="stable")
    return every[order], np.concatenate(owners)[order], np.concatenate(steps)[order]


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
    """The stretch of most evidence, at a distance in steps."""
    begin = max(0, -distance)
    end = min(len(first.words), len(second.words) - distance)
    here, there = slice(begin, end), slice(begin + distance, end + distance)
    words = first.words[here]
    heard = first.heard[here] & second.heard[there]
    equal = np.where(heard, BITS - _ones(words ^ second.words[there]), 0)
    unequal = np.where(heard, BITS - equal, 0)
    gain = equal * np.log2(2 * _LEAST_SIMILAR) + unequal * np.log2(2 - 2 * _LEAST_SIMILAR)
    total = np.concatenate([[0.0], np.cumsum(gain)])
    evidence = total - np.minimum.accumulate(total)
    stop = int(evidence.argmax())
    start = int(total[: stop + 1].argmin())
    part = slice(start, stop)
    bits = int(equal[part].sum() + unequal[part].sum())
    changes = int(_ones(words[part][1:] ^ words[part][:-1])[heard[part][1:]].sum())
    if not bits or changes < _FEWEST_CHANGES:
        return _Stretch(0.0, 0.0)
    return _Stretch(float(evidence[stop]), int(equal[part].sum()) / bits)


def _ones(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Bits that are set in each word."""
    each = np.ascontiguousarray(words).view(np.uint8).reshape(-1, words.itemsize)
    bits = np.unpackbits(each, axis=1)
    return np.asarray(bits.sum(axis=1), np.int64)
