"""RightAnswers: which clips each finished trial has answered rightly, pooled over its folds.

A bit an answer, so that those of thousands of trials fit in memory together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.outcomes import Entry
from orchestrator.records import SplitResult
from orchestrator.trials import Plan, Trial

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pooled:
    """The answers of a configuration's models, taken together.

    Attributes:
        clips: distinct clips that were answered.
        answers: each model's answer to each clip.
        hits: how many of the answers are right.
    """

    clips: int
    answers: int
    hits: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.hits / self.answers

    @property
    def clips_hit(self) -> float:
        """Clips answered rightly; where several models answer a clip, their mean."""
        return self.hits * self.clips / self.answers


@dataclass(frozen=True, slots=True)
class _Answered:
    """One trial's answers; `right` is packed, a bit a clip."""

    clips: Integers
    right: bytes

    def unpacked(self) -> NDArray[np.uint8]:
        packed = np.frombuffer(self.right, dtype=np.uint8)
        return np.unpackbits(packed, count=len(self.clips))


class RightAnswers:
    """The right answers of a run directory, collected in the one pass over its records.

    They are those on the test split if any trial has one, otherwise those on validation.
    """

    def __init__(self, plan: Plan) -> None:
        """Start with no trial."""
        self._clips = len(plan.clips)
        self._usable = sum(not clip.problem for clip in plan.clips)
        self._interned: dict[tuple[int, ...], Integers] = {}
        self._val: dict[str, _Answered] = {}
        self._test: dict[str, _Answered] = {}
        self._in_fold: dict[int | None, int] = {}

    def note(self, entry: Entry) -> None:
        """Take the next trial; an outer one of a nested cross-validation is compared with none."""
        record, trial = entry.record, entry.outcome.trial
        if record is None or record.val is None:
            return
        self._in_fold[trial.fold] = len(record.val.predictions.clips)
        if record.test is None:
            self._val[trial.id] = self._answered(record.val)
        else:
            self._test[trial.id] = self._answered(record.test)
            if trial.test_fold is not None:
                self._in_fold[trial.test_fold] = len(record.test.predictions.clips)

    @property
    def split(self) -> Literal["val", "test"]:
        """What the answers are to."""
        return "test" if self._test else "val"

    @property
    def _pool(self) -> dict[str, _Answered]:
        return self._test or self._val

    def pooled(self, trials: Iterable[Trial]) -> Pooled | None:
        """The answers of these trials together; None where there are none."""
        answered = np.zeros(self._clips, dtype=bool)
        answers = hits = 0
        for trial in trials:
            found = self._pool.get(trial.id)
            if found is not None:
                answered[found.clips] = True
                answers += len(found.clips)
                hits += int(found.unpacked().sum())
        return Pooled(int(answered.sum()), answers, hits) if answers else None

    def discordant(self, pairs: Iterable[tuple[Trial, Trial]]) -> tuple[int, int]:
        """Clips that the first one of each pair answers rightly more often, and less often.

        A clip counts once, however many models have answered it: further answers to a clip are
        no further clips. With one answer to each these are the discordant pairs of McNemar's
        test.

        Args:
            pairs: of trials on the same clips; others are left out.
        """
        lead = np.zeros(self._clips, dtype=np.int64)
        for first, second in pairs:
            one, other = self._pool.get(first.id), self._pool.get(second.id)
            # Equal clips are one array.
            if one is not None and other is not None and one.clips is other.clips:
                lead[one.clips] += one.unpacked().astype(np.int64) - other.unpacked()
        return int((lead > 0).sum()), int((lead < 0).sum())

    def test_to_train(self, trials: Iterable[Trial]) -> float | None:
        """Clips validated on over clips trained on, both summed over these trials.

        None where a fold's size is not known, since no trial that used it has finished.
        """
        val = train = 0
        for trial in trials:
            out = [self._in_fold.get(trial.fold)]
            if trial.test_fold is not None:
                out.append(self._in_fold.get(trial.test_fold))
            sizes = [size for size in out if size is not None]
            if len(sizes) < len(out):
                return None
            val += sizes[0]
            train += self._usable - sum(sizes)
        return val / train if train > 0 else None

    def _answered(self, result: SplitResult) -> _Answered:
        given = result.predictions
        clips = self._interned.setdefault(given.clips, np.array(given.clips, dtype=np.int64))
        right = np.array(given.labels) == np.array(given.predicted)
        return _Answered(clips, np.packbits(right).tobytes())
