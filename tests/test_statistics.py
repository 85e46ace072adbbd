"""Statistics: published examples, other libraries' figures, and what holds of any numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.statistics import (
    MeanEstimate,
    equivalence,
    estimate,
    holm,
    mcnemar,
    sign_test,
    standard_deviation,
    wilcoxon,
    wilson,
)

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Student (1908): additional hours of sleep by one drug beside another."""

DARWIN = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
"""Darwin's plants, as in SciPy's documentation of `wilcoxon`."""

FINITE = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)
P = st.floats(0, 1)


def made(values: Sequence[float], ratio: float = 0.0) -> MeanEstimate:
    found = estimate(values, ratio)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def moons() -> np.ndarray:
    """The AUROC of the first two models in scikit-learn's example, fold by fold: [100, 2]."""
    from sklearn.datasets import make_moons
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    x, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    models = [SVC(kernel=kernel, random_state=0) for kernel in ("rbf", "linear")]
    return np.array([cross_val_score(m, x, y, scoring="roc_auc", cv=folds) for m in models]).T


class TestEstimate:
    def test_student(self) -> None:
        found = made(SLEEP)
        assert (found.t, found.df) == (pytest.approx(4.0621, abs=5e-5), 9)
        assert found.p == pytest.approx(0.002833, abs=5e-7)
        ends = (found.interval.low, found.interval.high)
        assert ends == pytest.approx((0.7001142, 2.4598858), abs=5e-8)

    def test_scikit_learns_corrected_t_test(self, moons: np.ndarray) -> None:
        found = made(list(moons[:, 0] - moons[:, 1]), 10 / 90)
        assert f"{found.t:.3f}" == "0.750"
        assert f"{found.p / 2:.3f}" == "0.227", "the example's is one-sided"
        assert found.df == 99

    def test_scikit_learns_bayesian_test(self, moons: np.ndarray) -> None:
        found = made(list(moons[:, 0] - moons[:, 1]), 10 / 90)
        pointed = equivalence(found, 0.0)
        assert (f"{pointed.above:.3f}", f"{pointed.below:.3f}") == ("0.773", "0.227")
        assert pointed.inside == pytest.approx(0, abs=1e-12)
        wide = equivalence(found, 0.01)
        assert (f"{wide.inside:.3f}", f"{wide.above:.3f}") == ("0.432", "0.500")

    @given(st.lists(FINITE, min_size=2, max_size=12), st.floats(0, 2), st.floats(0, 1))
    def test_as_scipy_has_it(self, values: list[float], ratio: float, rope: float) -> None:
        found = estimate(values, ratio)
        if found is None:
            assert np.std(values) <= 1e-9 * max(1.0, *map(abs, values))
            return
        n = len(values)
        error = math.sqrt(np.var(values, ddof=1) * (1 / n + ratio))
        assert found.standard_error == pytest.approx(error, rel=1e-6)
        t = scipy.stats.t(n - 1, loc=found.mean, scale=found.standard_error)
        ends = (found.interval.low, found.interval.high)
        assert ends == pytest.approx(t.interval(0.95), rel=1e-9, abs=1e-9)
        p = 2 * scipy.stats.t.sf(abs(found.mean) / found.standard_error, n - 1)
        assert found.p == pytest.approx(p, rel=1e-9)
        probabilities = equivalence(found, rope)
        three = (probabilities.below, probabilities.inside, probabilities.above)
        inside = t.cdf(rope) - t.cdf(-rope)
        assert three == pytest.approx((t.cdf(-rope), inside, t.sf(rope)), abs=1e-9)
        assert all(0 <= one <= 1 for one in three)
        assert (found.p < 0.05) == (0 not in found.interval)

    @pytest.mark.parametrize(
        "values", [[], [0.5], [0.5, 0.5], [0.1 + 0.2 - 0.3, 0.0, 0.0], [0.45 - 0.4, 0.05]]
    )
    def test_without_spread_nothing_is_known(self, values: list[float]) -> None:
        assert estimate(values) is None

    def test_the_correction_widens(self) -> None:
        plain, corrected = made(SLEEP), made(SLEEP, 1 / 3)
        assert corrected.standard_error / plain.standard_error == pytest.approx(
            math.sqrt(1 + 10 / 3)
        )


class TestStandardDeviation:
    @given(st.lists(FINITE, max_size=12), st.sampled_from([0, 1]))
    def test_as_numpy_has_it(self, values: list[float], ddof: int) -> None:
        found = standard_deviation(values, ddof)
        if len(values) <= ddof:
            assert found is None
        else:
            assert found == pytest.approx(np.std(values, ddof=ddof), rel=1e-6, abs=1e-9)


class TestWilson:
    @pytest.mark.parametrize(
        ("hits", "clips", "low", "high"),
        [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0000, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ],
    )
    def test_newcombe(self, hits: int, clips: int, low: float, high: float) -> None:
        found = wilson(hits, clips)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)

    @given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_as_scipy_has_it(self, pair: tuple[int, int]) -> None:
        found = wilson(*pair)
        ends = scipy.stats.binomtest(*pair).proportion_ci(0.95, method="wilson")
        assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=1e-12)
        assert 0 <= found.low <= pair[0] / pair[1] <= found.high <= 1


class TestMcNemar:
    @pytest.mark.parametrize(
        ("pair", "p"),
        # Cardillo's example (chi-squared 20.672222) and Raschka's (chi-squared 2.025).
        [((59, 121), 0.000005), ((25, 15), 0.154728923485)],
    )
    def test_published(self, pair: tuple[int, int], p: float) -> None:
        found = mcnemar(*pair)
        assert found is not None
        assert not found.exact
        assert found.p == pytest.approx(p, abs=5e-7)

    def test_agrestis_table_with_the_continuity_correction(self) -> None:
        found = mcnemar(150, 86)
        assert found is not None
        # Without the correction it is (150 - 86)**2 / 236 = 17.36 (Agresti 1990, page 350).
        assert found.p == pytest.approx(scipy.stats.chi2.sf(63**2 / 236, 1), rel=1e-9)

    @given(st.integers(0, 40), st.integers(0, 40))
    def test_as_scipy_has_it(self, first: int, second: int) -> None:
        found = mcnemar(first, second)
        total = first + second
        if not total:
            assert found is None
            return
        assert found is not None
        assert found.exact == (total < 25)
        if found.exact:
            p = scipy.stats.binomtest(first, total).pvalue
        else:
            p = scipy.stats.chi2.sf(max(0, abs(first - second) - 1) ** 2 / total, 1)
        assert found.p == pytest.approx(p, rel=1e-9)
        assert sign_test(first, second) == pytest.approx(
            scipy.stats.binomtest(first, total).pvalue, rel=1e-9
        )


class TestWilcoxon:
    def test_scipys_example(self) -> None:
        assert wilcoxon(DARWIN) == 0.041259765625

    @given(st.lists(st.integers(-400, 400), min_size=1, max_size=14, unique_by=abs))
    def test_as_scipy_has_it_without_ties(self, values: list[int]) -> None:
        found = wilcoxon([value / 400 for value in values])
        kept = [value for value in values if value]
        if len(kept) < 6:
            assert found is None
        else:
            p = scipy.stats.wilcoxon(kept, method="exact").pvalue
            assert found == pytest.approx(p, rel=1e-9)

    @given(st.lists(st.integers(-3, 3), min_size=6, max_size=9))
    def test_ties_as_every_sign_of_the_ranks_gives_it(self, values: list[int]) -> None:
        kept = [value for value in values if value]
        found = wilcoxon([value * 0.1 for value in values])
        if len(kept) < 6:
            assert found is None
            return
        ranks = scipy.stats.rankdata(np.abs(kept))
        seen = ranks[np.array(kept) > 0].sum()
        sums = [
            sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
            for signs in itertools.product((0, 1), repeat=len(ranks))
        ]
        low, high = np.mean(np.array(sums) <= seen), np.mean(np.array(sums) >= seen)
        assert found == pytest.approx(min(1, 2 * min(low, high)))

    def test_equal_fractions_that_differ_in_their_last_bits_tie(self) -> None:
        noisy = [0.3 - 0.2, 0.1, 0.4 - 0.3, -0.1, 0.9 - 0.8, 0.1, 0.1]
        assert wilcoxon(noisy) == wilcoxon([1, 1, 1, -1, 1, 1, 1])


class TestHolm:
    def test_by_hand(self) -> None:
        # Sorted 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1, and never below the one before.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    @given(st.lists(st.none() | P, max_size=8))
    def test_the_family_is_what_has_a_p_value(self, values: list[float | None]) -> None:
        found = holm(values)
        known = [p for p in values if p is not None]
        assert [one is None for one in found] == [p is None for p in values]
        # Holm is the closure of Bonferroni: the largest over all families that hold the member.
        for i, p in enumerate(values):
            if p is None:
                continue
            assert found[i] == pytest.approx(_closure(known, p))

    def test_nothing(self) -> None:
        assert holm([]) == []
        assert holm([None]) == [None]


def _closure(every: Sequence[float], p: float) -> float:
    """The largest Bonferroni p value of the subsets with `p` in them (Marcus et al. 1976)."""
    others = list(every)
    others.remove(p)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(others, n) for n in range(len(others) + 1)
    )
    return max(min(1.0, (len(s) + 1) * min(p, *s, 1.0)) for s in subsets)
