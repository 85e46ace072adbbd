"""Metrics of one split, by scikit-learn."""

from __future__ import annotations

import importlib

import numpy as np
from numpy.typing import NDArray

from orchestrator.records import Scores


def load() -> None:
    """Import scikit-learn's metrics, which takes a second the first time in a process."""
    importlib.import_module("sklearn.metrics")


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
    from sklearn.metrics import precision_recall_fscore_support

    values: tuple[NDArray[np.float64], ...] = precision_recall_fscore_support(
        labels, predicted, average=None, zero_division=0
    )
    return values


def _auroc(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float | None:
    from sklearn.metrics import roc_auc_score

    classes = probabilities.shape[1]
    if classes < 2 or len(np.unique(labels)) < classes:
        return None
    if classes == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))
