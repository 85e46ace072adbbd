"""What a fitted estimator of scikit-learn answers for clips, in training and in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["EstimatorAnswers", "answers_of", "clip_vectors"]


@dataclass(frozen=True)
class EstimatorAnswers:
    """Answers for `n` clips.

    Attributes:
        predicted: class indices `[n]`, as the estimator itself predicts.
        probabilities: float64 `[n, k]`, each row sums to 1.
    """

    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def clip_vectors(features: NDArray[Any]) -> NDArray[np.float64]:
    """Features as an estimator takes them, a vector a clip, float64 `[n, d]`.

    Args:
        features: as they are stored, `[n, ...]`; an image is uint8, and becomes 0..1.
    """
    matrix = features.reshape(len(features), -1).astype(np.float64)
    return matrix / 255 if features.dtype == np.uint8 else matrix


def answers_of(estimator: Any, vectors: NDArray[np.float64], classes: int) -> EstimatorAnswers:
    """What a fitted estimator says of clips.

    Probabilities are `predict_proba`'s; where there is none (SVC, LinearSVC, Perceptron,
    RidgeClassifier, ...) the softmax of `decision_function`, which ranks the classes as the
    estimator does, but whose size compares with no other model's.

    Raises:
        ValueError: the estimator refuses the features, or its answers have another shape.
    """
    if hasattr(estimator, "predict_proba"):
        probabilities = np.asarray(estimator.predict_proba(vectors), np.float64)
    else:
        probabilities = _softmax(estimator.decision_function(vectors))
    if probabilities.shape != (len(vectors), classes):
        found = f"estimator gave scores {list(probabilities.shape)}"
        raise ValueError(f"{found}, expected [{len(vectors)}, {classes}]")
    predicted = np.asarray(estimator.predict(vectors), np.int64)
    return EstimatorAnswers(predicted, probabilities)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1; of two classes scikit-learn gives one score, the second one's."""
    if scores.ndim == 1:
        scores = np.column_stack([np.zeros_like(scores), scores])
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)
