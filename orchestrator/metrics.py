"""Metrics of one split, equal to scikit-learn's, whose import takes a second in each worker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.records import Scores


def score(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    loss: float,
) -> Scores:
    """Accuracy, precision, recall, F1 and AUROC over all clips of a split.

    1. Precision, recall and F1 average over the classes that occur among labels or predictions,
       scikit-learn's default; one that is never predicted has precision 0, one that is never a
       label has recall 0. Weighted averages weigh a class by its labels.
    2. AUROC is the unweighted mean of each class against the rest (Fawcett 2006; ties count
       half); None where one of the `k` classes has no label.
    3. With two classes that is the area of the second one, both being equal.

    Args:
        labels: true class indices `[n]`, n at least 1.
        predicted: predicted ones `[n]`.
        probabilities: `[n, k]`, each row sums to 1.
        loss: mean per clip, handed through.
    """
    precision, recall, f1, support = _by_class(labels, predicted)
    return Scores(
        accuracy=float(np.mean(labels == predicted)),
        loss=loss,
        precision=float(np.average(precision)),
        recall=float(np.average(recall)),
        f1=float(np.average(f1)),
        auroc=_auroc(labels, probabilities),
        precision_weighted=float(np.average(precision, weights=support)),
        recall_weighted=float(np.average(recall, weights=support)),
        f1_weighted=float(np.average(f1, weights=support)),
    )


def _by_class(
    labels: NDArray[np.int64], predicted: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """Precision, recall, F1 and support of each class that occurs."""
    length = int(max(labels.max(), predicted.max())) + 1
    support = np.bincount(labels, minlength=length)
    claimed = np.bincount(predicted, minlength=length)
    occurs = support + claimed > 0
    support, claimed = support[occurs], claimed[occurs]
    right = np.bincount(labels[labels == predicted], minlength=length)[occurs]
    # No right answer where a divisor is 0: the share is 0 then.
    precision = right / np.maximum(claimed, 1)
    recall = right / np.maximum(support, 1)
    return precision, recall, 2 * right / (support + claimed), support.astype(np.float64)


def _auroc(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float | None:
    classes = probabilities.shape[1]
    if classes < 2 or len(np.unique(labels)) < classes:
        return None
    if classes == 2:
        return _area(labels == 1, probabilities[:, 1])
    areas = [_area(labels == k, probabilities[:, k]) for k in range(classes)]
    return float(np.mean(areas))


def _area(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Of the pairs of a positive and a negative, the share in which the positive scores higher."""
    values, places = np.unique(scores, return_inverse=True)
    positives = np.bincount(places[positive], minlength=len(values))
    negatives = np.bincount(places[~positive], minlength=len(values))
    # A tie counts half; twice the number is whole, and exact.
    higher = 2 * np.cumsum(negatives) - negatives
    return float((positives * higher).sum() / (2 * positives.sum() * negatives.sum()))
