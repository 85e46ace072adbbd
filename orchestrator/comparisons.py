"""Comparisons: each configuration's score with its uncertainty, and beside the best one's.

The best is chosen on validation, and the tests over folds are of the metric that it is chosen
by; only answers to clips are those of the test split, where there is one. What counts as one
observation:

1. A fold. Scores on the same validation clips (several seeds; test folds in turn) are averaged
   first: they are further trainings, not further folds. So `n` is the number of validation
   folds in the t interval, the corrected t-test, the Bayesian one and Wilcoxon's.
2. A clip. Where several models answer one clip (those of every fold, with one fold held out for
   the test), Wilson's interval takes the share of all answers with the number of distinct clips
   as `n`, as if further answers to a clip said nothing new; McNemar's test counts a clip once,
   for the configuration more of whose models answer it rightly.

Pairs are scores of equal test fold, validation fold and seed. Configurations that lack a fold
are compared on the others. P values are adjusted (Holm) over all configurations beside the best.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.configuration_scores import (
    Best,
    ConfigurationScores,
    FoldScore,
    best_configuration,
    configuration_scores,
)
from orchestrator.right_answers import Pooled, RightAnswers
from orchestrator.statistics import (
    Equivalence,
    McNemar,
    MeanEstimate,
    equivalence,
    estimate,
    holm,
    mcnemar,
    wilcoxon,
)
from orchestrator.trials import Plan, Trial

ROPE = 0.01
"""Fractions that differ by less are the same for practical purposes (Benavoli et al. 2017)."""

SIGNIFICANT = 0.05
"""A difference is shown where its adjusted p value is below."""


@dataclass(frozen=True)
class AgainstBest:
    """The best configuration less another one.

    Attributes:
        pairs: trials that both have finished, equal in test fold, validation fold and seed.
        folds: validation folds among them.
        difference: mean over these folds, in the metric's unit; above 0 where the best is higher.
        test_to_train: clips validated on over clips trained on; None where not known.
        corrected: Nadeau and Bengio's estimate of the difference; None where not defined.
        wilcoxon: p value over folds; None with too few.
        best_only: clips that more models of the best answer rightly than of the other.
        other_only: the reverse.
        mcnemar: of these two numbers; None where both are 0.
        corrected_holm: p value of `corrected`, adjusted; None like the plain one.
        wilcoxon_holm: likewise.
        mcnemar_holm: likewise.
    """

    pairs: int
    folds: int
    difference: float
    test_to_train: float | None
    corrected: MeanEstimate | None
    wilcoxon: float | None
    best_only: int
    other_only: int
    mcnemar: McNemar | None
    corrected_holm: float | None = None
    wilcoxon_holm: float | None = None
    mcnemar_holm: float | None = None

    @property
    def shown(self) -> bool:
        """The corrected t-test, adjusted, tells the difference from chance."""
        return self.corrected_holm is not None and self.corrected_holm < SIGNIFICANT


@dataclass(frozen=True)
class ConfigurationStatistics:
    """One configuration.

    Attributes:
        scores: the metric that configurations are ranked by.
        folds: number of validation folds with a score.
        over_folds: the mean over folds as if these were independent; None with fewer than two, and
            where a fold lacks seeds that another has: the mean of the tables is another one then.
        pooled: its answers to clips; None without any.
        against_best: None for the best itself and where no trial pairs.
    """

    scores: ConfigurationScores
    folds: int
    over_folds: MeanEstimate | None
    pooled: Pooled | None
    against_best: AgainstBest | None


@dataclass(frozen=True)
class Comparisons:
    """Every configuration beside the best.

    Attributes:
        plan: every trial.
        best: what the others are compared with; None while no configuration has every fold.
        split: `val` or `test`: what the pooled answers are to.
        rows: of every configuration, in plan order.
    """

    plan: Plan
    best: Best | None
    split: str
    rows: tuple[ConfigurationStatistics, ...]

    @property
    def rope(self) -> float:
        """Half the region of practical equivalence: `ROPE`; 0 for losses, whose scale is free."""
        return 0.0 if self.plan.metric.endswith("_loss") else ROPE

    @cached_property
    def tested(self) -> int:
        """How many differences the corrected t-test was made for."""
        return sum(
            row.against_best is not None and row.against_best.corrected is not None
            for row in self.rows
        )

    def equivalence(self, against: AgainstBest) -> Equivalence | None:
        """The Bayesian correlated t-test of a difference."""
        return equivalence(against.corrected, self.rope) if against.corrected else None


def compare(plan: Plan, values: Mapping[str, float | None], answers: RightAnswers) -> Comparisons:
    """Compare every configuration with the best.

    Args:
        plan: every trial.
        values: the plan's metric of each finished trial, by its identity.
        answers: of the same trials.
    """
    best = best_configuration(plan, values)
    rows = [_statistics(one, best, answers) for one in configuration_scores(plan, values)]
    return Comparisons(plan, best, answers.split, tuple(_adjusted(rows)))


def _statistics(
    scores: ConfigurationScores, best: Best | None, answers: RightAnswers
) -> ConfigurationStatistics:
    valued = [(f.trial.fold, f.value) for f in scores.folds if f.value is not None]
    means = _fold_means(valued)
    evenly = len(set(Counter(fold for fold, _ in valued).values())) == 1
    compared = best is not None and best.configuration.id != scores.configuration.id
    return ConfigurationStatistics(
        scores=scores,
        folds=len(means),
        over_folds=estimate(means) if evenly else None,
        pooled=answers.pooled(fold.trial for fold in scores.folds),
        against_best=_against(best, scores, answers) if best and compared else None,
    )


def _against(best: Best, scores: ConfigurationScores, answers: RightAnswers) -> AgainstBest | None:
    pairs = _pairs(best.folds, scores.folds)
    valued = [(a, b) for a, b in pairs if a.value is not None and b.value is not None]
    if not valued:
        return None
    means = _fold_means((a.trial.fold, (a.value or 0.0) - (b.value or 0.0)) for a, b in valued)
    ratio = answers.test_to_train(a.trial for a, _ in valued)
    best_only, other_only = answers.discordant((a.trial, b.trial) for a, b in pairs)
    return AgainstBest(
        pairs=len(valued),
        folds=len(means),
        difference=math.fsum(means) / len(means),
        test_to_train=ratio,
        corrected=None if ratio is None else estimate(means, ratio),
        wilcoxon=wilcoxon(means),
        best_only=best_only,
        other_only=other_only,
        mcnemar=mcnemar(best_only, other_only),
    )


def _pairs(
    best: Iterable[FoldScore], other: Iterable[FoldScore]
) -> list[tuple[FoldScore, FoldScore]]:
    """Scores of equal test fold, validation fold and seed, in plan order."""
    by_place = {_place(score.trial): score for score in other}
    return [(one, by_place[_place(one.trial)]) for one in best if _place(one.trial) in by_place]


def _place(trial: Trial) -> tuple[int | None, int | None, int]:
    return trial.test_fold, trial.fold, trial.seed


def _fold_means(values: Iterable[tuple[int | None, float]]) -> list[float]:
    """The mean of the values of each fold."""
    by_fold: dict[int | None, list[float]] = {}
    for fold, value in values:
        by_fold.setdefault(fold, []).append(value)
    return [math.fsum(found) / len(found) for found in by_fold.values()]


def _adjusted(rows: list[ConfigurationStatistics]) -> list[ConfigurationStatistics]:
    """The rows with the p values of each test adjusted over all of them."""
    pairs = [row.against_best for row in rows]
    corrected = holm([one.corrected.p if one and one.corrected else None for one in pairs])
    signed = holm([one.wilcoxon if one else None for one in pairs])
    counted = holm([one.mcnemar.p if one and one.mcnemar else None for one in pairs])
    adjusted = (
        one and replace(one, corrected_holm=t, wilcoxon_holm=w, mcnemar_holm=m)
        for one, t, w, m in zip(pairs, corrected, signed, counted, strict=True)
    )
    return [replace(row, against_best=one) for row, one in zip(rows, adjusted, strict=True)]
