"""Metrics against scikit-learn's own averages and known answers."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from orchestrator.metrics import score
from orchestrator.records import Scores


def scored(labels: list[int], predicted: list[int], classes: int) -> Scores:
    probabilities = np.eye(classes)[predicted]
    return score(np.array(labels), np.array(predicted), probabilities, 0.5)


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions and probabilities of up to 40 clips in up to 6 classes."""
    classes = draw(st.integers(2, 6))
    clips = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(0, classes, clips)
    # Few distinct values, so that ties occur.
    scores = rng.integers(1, 5, (clips, classes)).astype(float)
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    return labels, probabilities.argmax(axis=1), probabilities


@settings(max_examples=150, deadline=None)
@given(answers())
def test_scores_are_scikit_learns(given: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, predicted, probabilities = given
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score(labels, predicted, probabilities, 1.25)
    assert found.loss == 1.25
    assert found.accuracy == accuracy_score(labels, predicted)
    for average, values in (
        ("macro", (found.precision, found.recall, found.f1)),
        ("weighted", (found.precision_weighted, found.recall_weighted, found.f1_weighted)),
    ):
        expected = precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        assert values == expected[:3], average


@settings(max_examples=150, deadline=None)
@given(answers())
def test_auroc_is_the_mean_over_classes_or_nothing(
    given: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, predicted, probabilities = given
    found = score(labels, predicted, probabilities, 0.0).auroc
    classes = probabilities.shape[1]
    if len(set(labels.tolist())) < classes:
        assert found is None
    else:
        areas = [roc_auc_score(labels == k, probabilities[:, k]) for k in range(classes)]
        assert found == pytest.approx(np.mean(areas), abs=1e-12)


def test_known_values() -> None:
    found = scored([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0], 3)
    assert found.accuracy == 4 / 6
    assert found.precision == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert found.recall == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert found.f1 == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)


def test_weights_are_the_labels() -> None:
    found = scored([0, 0, 0, 1], [0, 0, 1, 1], 2)
    assert found.recall == pytest.approx((2 / 3 + 1) / 2)
    assert found.recall_weighted == pytest.approx(3 / 4)


def test_perfect_answers() -> None:
    found = scored([2, 0, 1], [2, 0, 1], 3)
    assert (found.accuracy, found.precision, found.f1, found.auroc) == (1.0, 1.0, 1.0, 1.0)


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    found = scored([0, 1], [0, 0], 2)
    assert found.precision == pytest.approx(0.25)
    assert found.f1 == pytest.approx(1 / 3)


def test_a_class_that_never_occurs_is_left_out() -> None:
    assert scored([0, 1], [0, 1], 5).recall == 1.0


def test_a_class_that_is_only_predicted_counts() -> None:
    found = scored([0, 0], [0, 1], 2)
    assert found.recall == pytest.approx(0.25)
    assert found.auroc is None


def test_two_classes_take_the_second_ones_probability() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]])
    found = score(np.array([0, 0, 1, 1]), probabilities.argmax(axis=1), probabilities, 0.0)
    assert found.auroc == pytest.approx(0.75)


def test_values_are_plain_numbers() -> None:
    found = scored([0, 1, 1], [0, 1, 0], 2)
    kinds = {type(getattr(found, name)) for name in Scores.__slots__}
    assert kinds == {float}


def test_a_call_is_quick() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(10), 80)
    labels, predicted = np.arange(80) % 10, probabilities.argmax(axis=1)
    score(labels, predicted, probabilities, 0.0)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        score(labels, predicted, probabilities, 0.0)
        seconds.append(time.perf_counter() - begin)
    # Six milliseconds where nothing else runs.
    assert min(seconds) < 0.05
