"""Fitting one estimator of scikit-learn: without Ray, disk or audio; no epochs, but one row.

`EstimatorFit` stands where `training.Fit` stands for a network: one `run_epoch`, then `result`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from models.estimator_answers import answers_of, clip_vectors
from orchestrator.error_line import plain_line
from orchestrator.evaluation import recorded
from orchestrator.records import EpochRow, SplitResult
from orchestrator.seeding import seed_everything
from orchestrator.training import NonFiniteLoss, TrainingData


@dataclass(frozen=True)
class _Answers:
    """A fitted estimator's answers on one split.

    Attributes:
        rows: of the split.
        labels: class indices `[n]`.
        predicted: likewise.
        probabilities: float64 `[n, k]`, each row sums to 1.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.predicted == self.labels))

    @property
    def loss(self) -> float:
        """As scikit-learn's `log_loss`: no probability counts as less than float64's epsilon."""
        of_labels = self.probabilities[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(of_labels, np.finfo(np.float64).eps)).mean())

    @property
    def result(self) -> SplitResult:
        return recorded(self.rows, self.labels, self.predicted, self.probabilities, self.loss)


class EstimatorFit:
    """One estimator being fitted.

    A clip's features are one vector, float64 `[d]`: in the order that they are stored in, an
    image as one channel in 0..1. Predictions are the estimator's own; where it has no
    probabilities (see `answers_of`), the loss compares with no other model's.

    Attributes:
        estimator: what is fitted, and by `run_epoch` has been.
        remark: what scikit-learn warned of; empty where of nothing.
        twin_row: the row as `SplitData.twin` sees it; None without.
    """

    def __init__(self, estimator: Any, data: TrainingData, seed: int) -> None:
        """Prepare the fit.

        Args:
            estimator: a classifier of scikit-learn, not fitted yet.
            data: features, labels and split.
            seed: of numpy's global generator, for `random_state: null`.

        Raises:
            ValueError: an empty split.
        """
        for name in ("train", "val", "test", "twin"):
            rows = getattr(data.split, name)
            if rows is not None and not len(rows):
                raise ValueError(f"the {name} split has no clips")
        self.remark = ""
        self.estimator = estimator
        self._data = data
        self._seed = seed
        self._fitted = False
        self._val: _Answers | None = None
        self._twin: _Answers | None = None
        self.twin_row: EpochRow | None = None

    @property
    def finished(self) -> bool:
        """Whether the estimator has been fitted."""
        return self._fitted

    def run_epoch(self) -> EpochRow:
        """Fit on the training split, then answer on it and on the validation split.

        `train_loss` and `train_accuracy` are those of the fitted estimator on the clips that it
        was fitted to, which for many is a perfect score.

        Raises:
            NonFiniteLoss: training or validation loss is nan.
            ValueError: the estimator refuses the features, or its answers have another shape.
        """
        seed_everything(self._seed)
        split = self._data.split
        rows = split.train
        with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
            # Also what it has warned of in an earlier trial of this process.
            warnings.simplefilter("always")
            self.estimator.fit(self._vectors(rows), self._data.labels[rows])
            train = self._answers(rows)
            self._val = None if split.val is None else self._answers(split.val)
            self._twin = None if split.twin is None else self._answers_for_twin(split.twin)
        self.remark = _remark(caught)
        self._fitted = True
        _check_loss("loss", train.loss)
        if self._twin is not None:
            self.twin_row = _row(train, self._twin)
        return _row(train, self._val)

    def _answers_for_twin(self, rows: NDArray[np.int64]) -> _Answers | None:
        """None where there are none: that split is no affair of this trial, and must not end it."""
        try:
            found = self._answers(rows)
        # Estimators raise what they like.
        except Exception:
            return None
        return found if math.isfinite(found.loss) else None

    def result(self) -> tuple[int, SplitResult | None, SplitResult | None]:
        """Epoch 0, and the validation and test splits; the latter is evaluated here, once.

        Raises:
            RuntimeError: nothing has been fitted.
            NonFiniteLoss: the test loss is nan.
        """
        if not self._fitted:
            raise RuntimeError("no epoch has been run")
        val = None if self._val is None else self._val.result
        if self._data.split.test is None:
            return 0, val, None
        with threadpool_limits(1):
            test = self._answers(self._data.split.test)
        _check_loss("test loss", test.loss)
        return 0, val, test.result

    def twin_result(self) -> tuple[int, SplitResult | None] | None:
        """Epoch 0, and the second validation split; None without one, or answers for it."""
        return None if self._twin is None else (0, self._twin.result)

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The features of some clips, float64 `[n, d]`; never those of the others."""
        return clip_vectors(self._data.features[rows])

    def _answers(self, rows: NDArray[np.int64]) -> _Answers:
        said = answers_of(self.estimator, self._vectors(rows), self._data.classes)
        return _Answers(rows, self._data.labels[rows], said.predicted, said.probabilities)


def _row(train: _Answers, val: _Answers | None) -> EpochRow:
    if val is not None:
        _check_loss("validation loss", val.loss)
    return EpochRow(
        epoch=0,
        lr=None,
        train_loss=train.loss,
        train_accuracy=train.accuracy,
        val_loss=None if val is None else val.loss,
        val_accuracy=None if val is None else val.accuracy,
    )


def _remark(caught: list[warnings.WarningMessage]) -> str:
    lines = (
        plain_line(f"{one.category.__name__}: {next(iter(str(one.message).splitlines()), '')}")
        for one in caught
    )
    return "; ".join(dict.fromkeys(lines))


def _check_loss(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise NonFiniteLoss(f"{name} is {value}")
