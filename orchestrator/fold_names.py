"""What folds and splits are called in pictures, so that validation and test are never confused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.run_digest import Answers, ModelRuns, RunDigest
from orchestrator.run_sets import repeated, twice_validated
from orchestrator.trials import Plan, Trial

Fold = tuple[int | None, int | None]
"""Test fold and validation fold."""


def fold_of(trial: Trial) -> Fold:
    """The folds of a trial, which its repeats share."""
    return trial.test_fold, trial.fold


@dataclass(frozen=True)
class FoldNames:
    """Names of the folds of a plan.

    Attributes:
        plan: every trial.
    """

    plan: Plan

    @property
    def repeats(self) -> int:
        """Seeds that every fold is run with."""
        return len({trial.seed for trial in self.plan.trials}) if repeated(self.plan) else 1

    @property
    def short(self) -> dict[Fold, str]:
        """A name for each pair of folds, in plan order: the test fold only where it is needed."""
        twice = twice_validated(self.plan.trials)
        return {
            fold_of(t): f"fold {t.fold}" + (f" (test {t.test_fold})" if t.fold in twice else "")
            for t in self.plan.trials
        }

    def validation(self, fold: Fold) -> str:
        """The validation split, and the test fold where it is not the same for all."""
        test, validated = fold
        if test is None or len({t.test_fold for t in self.plan.trials}) == 1:
            return f"validation fold {validated}"
        return f"validation fold {validated} (test fold {test})"

    def test(self, fold: Fold) -> str:
        """The test split, and the fold that the model was validated on."""
        test, validated = fold
        return f"test fold {test} (model of fold {validated})"


def pooled(answers: Sequence[Answers], split: Literal["val", "test"], names: FoldNames) -> str:
    """What pooled answers are made of: split, folds, clips and how often each was answered."""
    answered = sum(one.labels.size for one in answers)
    clips = len(np.unique(np.concatenate([one.clips for one in answers])))
    if split == "val":
        folds = dict.fromkeys(one.trial.fold for one in answers)
    else:
        folds = dict.fromkeys(one.trial.test_fold or 0 for one in answers)
    word = "VALIDATION" if split == "val" else "TEST"
    text = f"{word} {_listed('fold', list(folds))}: {counted(clips, 'clip')}"
    if answered == clips:
        return f"{text}, each predicted by a model not trained on it."
    times = f"{answered // clips} times" if answered % clips == 0 else "several times"
    per_fold = len({fold_of(one.trial) for one in answers})
    models = counted(len(answers), "trained model")
    how = f"{per_fold} folds x {names.repeats} seeds" if names.repeats > 1 else "one a fold"
    return f"{text}, each predicted {times} ({models}, {how}): {answered} predictions."


def best_of(digest: RunDigest, model: ModelRuns) -> str:
    """Which configuration of a model is shown, and whether that is settled; empty for the one."""
    run = model.runs[0]
    text = ""
    if model.count > 1:
        name = digest.short_names[run.configuration.id]
        text = f"Best of {model.count} configurations: {name}."
    return text if run.scores.complete else f"{text} Not every fold of it has finished.".strip()


def counted(number: int, noun: str) -> str:
    """`1 fold`, `2 folds`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _listed(noun: str, numbers: list[int | None]) -> str:
    """`fold 1`, `folds 2, 3, 4`, or, of many, the first ones and how many there are."""
    if len(numbers) == 1:
        return f"{noun} {numbers[0]}"
    if len(numbers) > 12:
        return f"{noun}s {numbers[0]} to {numbers[-1]} ({len(numbers)} of them)"
    return f"{noun}s " + ", ".join(map(str, numbers))
