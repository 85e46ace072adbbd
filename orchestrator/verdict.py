"""Verdict: how sure it is that the best configuration is better than the others.

Configurations are compared fold by fold, since they share their folds, by the sign test: how
often would two equally good configurations come out at least as unevenly? It asks little of the
scores and promises little. Training sets overlap, so that the folds are not independent, and the
best was picked by the scores that it is judged by: both make a lead look surer than it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.configuration_scores import Best, ConfigurationScores, sort_key
from orchestrator.score_text import ScoreText
from orchestrator.statistics import sign_test
from orchestrator.trials import Configuration

CLEAR = 0.05
"""A lead is clear where chance alone gives one as uneven in at most this share of cases."""

LEAD = 0.2
"""Likewise for a lead worth the name; above it, it is too close to call."""

_FEW = "too few folds to tell"
"""Where not even a lead in every fold could be told from chance."""

Fold = int | None


class Certainty(StrEnum):
    """How sure the first place is."""

    ALONE = "nothing to compare with"
    TIED = "a tie"
    TOO_CLOSE = "too close to call"
    LEAD = "a lead, but no proof"
    CLEAR = "a clear lead"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The best configuration against another on the folds that both have.

    Attributes:
        difference: mean over the folds, above 0 where the best is better.
        wins: folds in which the best is better.
        losses: folds in which the other is.
        ties: folds in which they are equal.
    """

    difference: float
    wins: int
    losses: int
    ties: int

    @property
    def folds(self) -> int:
        """Number of folds compared."""
        return self.wins + self.losses + self.ties

    @property
    def chance(self) -> float:
        """Two-sided sign test (Dixon and Mood 1946), folds with a tie left out; 0..1.

        1 where the best loses more folds than it wins: these are no evidence for its lead.

        >>> Comparison(0.1, wins=4, losses=0, ties=0).chance
        0.125
        """
        return sign_test(self.wins, self.losses) if self.wins >= self.losses else 1.0

    @property
    def certainty(self) -> Certainty:
        """What the comparison allows to say."""
        # Means that are equal on paper differ in their last bits.
        if abs(self.difference) < 1e-9:
            return Certainty.TIED
        if self.chance > LEAD:
            return Certainty.TOO_CLOSE
        return Certainty.LEAD if self.chance > CLEAR else Certainty.CLEAR


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first place, judged.

    Attributes:
        runner_up: the second best mean; None where no other configuration is complete.
        comparison: of the best with it.
        others: complete configurations beside the best.
        close: how many of them are tied or too close to call.
        incomplete: configurations that lack a fold, so that they are not compared.
    """

    runner_up: Configuration | None
    comparison: Comparison | None
    others: int
    close: int
    incomplete: int

    @property
    def certainty(self) -> Certainty:
        """How sure the first place is, by the runner-up."""
        return self.comparison.certainty if self.comparison else Certainty.ALONE


def judge(scores: Sequence[ConfigurationScores], best: Best, mode: str) -> Verdict:
    """Compare the best configuration with every other that is complete.

    Args:
        scores: the metric that configurations are ranked by, in plan order.
        best: one of them.
        mode: `max` or `min`, whichever is better.
    """
    own = _by_fold((fold.trial.fold, fold.value) for fold in best.folds)
    others = [one for one in scores if one.configuration.id != best.configuration.id]
    ranked = [one for one in others if one.complete and one.mean is not None]
    if not ranked:
        return Verdict(None, None, 0, 0, len(others))
    comparisons = {one.configuration.id: compare(own, folds_of(one), mode) for one in ranked}
    close = sum(c.certainty in (Certainty.TIED, Certainty.TOO_CLOSE) for c in comparisons.values())
    second = min(ranked, key=lambda one: sort_key(one.mean, mode))
    comparison = comparisons[second.configuration.id]
    left = len(others) - len(ranked)
    return Verdict(second.configuration, comparison, len(ranked), close, left)


def compare(best: Mapping[Fold, float], other: Mapping[Fold, float], mode: str) -> Comparison:
    """Compare on the folds that both have.

    Args:
        best: score by validation fold.
        other: likewise.
        mode: `max` or `min`, whichever is better.
    """
    sign = -1 if mode == "min" else 1
    differences = [sign * (best[fold] - other[fold]) for fold in best if fold in other]
    # Means over seeds differ in their last bits where the scores are equal.
    differences = [0.0 if abs(d) < 1e-12 else d for d in differences]
    return Comparison(
        difference=math.fsum(differences) / len(differences) if differences else 0.0,
        wins=sum(d > 0 for d in differences),
        losses=sum(d < 0 for d in differences),
        ties=sum(d == 0 for d in differences),
    )


def folds_of(scores: ConfigurationScores) -> dict[Fold, float]:
    """The score of each validation fold, averaged over what shares its clips: seeds, test folds."""
    return _by_fold((f.trial.fold, f.value) for f in scores.folds)


def words(verdict: Verdict, metric: ScoreText, mode: str) -> list[str]:
    """The verdict in sentences, the first of which says it all."""
    comparison = verdict.comparison
    if comparison is None:
        return [
            "No other configuration has finished every fold: there is nothing to compare it with."
            if verdict.incomplete
            else "It is the only configuration: there is nothing to compare it with."
        ]
    sentences = [_against_runner_up(comparison, metric, mode), *_chance(comparison)]
    if verdict.others > 1 and 2 / 2**comparison.folds <= LEAD:
        sentences.append(_how_many_close(verdict))
    if verdict.incomplete:
        n = verdict.incomplete
        what = "configuration lacks" if n == 1 else "configurations lack"
        sentences.append(f"{n} further {what} a fold and could still win.")
    return sentences


def _against_runner_up(comparison: Comparison, metric: ScoreText, mode: str) -> str:
    n = comparison.folds
    where = f"better in {comparison.losses or 'none'} of {n} folds"
    if comparison.ties:
        where += f" (equal in {comparison.ties})"
    if comparison.certainty is Certainty.TIED:
        where = "equal in every fold" if comparison.ties == n else where
        return f"The runner-up has the same mean and is {where}: a tie that the plan's order broke."
    word = "higher" if mode == "min" else "lower"
    distance = f"{metric.difference(abs(comparison.difference))} {word}"
    if n == 1:
        return f"The runner-up is {distance} in the only fold: {_FEW}."
    few = comparison.certainty is Certainty.TOO_CLOSE and 2 / 2**n > LEAD
    judgement = _FEW if few else comparison.certainty
    return f"The runner-up is {distance} on average and {where}: {judgement}."


def _chance(comparison: Comparison) -> list[str]:
    decided, chance = comparison.wins + comparison.losses, comparison.chance
    if decided < 2 or chance > 0.5:
        return []
    cases = round(1 / chance)
    about = "" if math.isclose(cases * chance, 1) else "about "
    sentences = [
        "Two equally good configurations would come out at least as unevenly in"
        f" {about}1 of {cases} cases (sign test)."
    ]
    if 2 / 2**decided > LEAD:
        sentences.append(f"With {decided} folds that differ, no result could be surer.")
    return sentences


def _how_many_close(verdict: Verdict) -> str:
    if verdict.close == verdict.others:
        return f"None of the {verdict.others} other complete configurations is clearly behind."
    what = "is" if verdict.close < 2 else "are"
    return (
        f"Of the {verdict.others} other complete configurations, {verdict.close or 'none'} {what}"
        " too close to the best to call."
    )


def _by_fold(values: Iterable[tuple[Fold, float | None]]) -> dict[Fold, float]:
    found: dict[Fold, list[float]] = {}
    for fold, value in values:
        if value is not None:
            found.setdefault(fold, []).append(value)
    return {fold: math.fsum(of_seeds) / len(of_seeds) for fold, of_seeds in found.items()}
