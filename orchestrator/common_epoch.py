"""The common epoch: one epoch for all folds of a configuration, and how long to train by it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median_low

from orchestrator.hyperparameters import TrainSpec
from orchestrator.records import EpochRow


def epochs_without_validation(train: TrainSpec | None, curves: Sequence[Sequence[EpochRow]]) -> int:
    """How many epochs to train where no clip is left to validate, by the folds' trials.

    With `train.select: best` to their common epoch, else for as many epochs as they ran: the
    lower median, where early stopping made them differ.

    Args:
        train: of the configuration; None for an estimator, which has one epoch.
        curves: the epochs of each fold (and seed) in order, at least one, all with validation.
    """
    if train is not None and train.select == "best":
        return common_epoch(curves) + 1
    return median_low([len(curve) for curve in curves])


def common_epoch(curves: Sequence[Sequence[EpochRow]]) -> int:
    """The epoch, counted from 0, of the highest mean validation accuracy over the folds.

    Of those that every fold has run; ties go to the lower mean loss, then to the earlier epoch.

    Args:
        curves: the epochs of each fold (and seed) in order, at least one, all with validation.

    >>> rows = [[EpochRow(e, 0.1, 1.0, 0.5, 1.0, a) for e, a in enumerate(c)]
    ...         for c in ((0.2, 0.6, 0.9), (0.5, 0.7, 0.1, 0.9))]
    >>> common_epoch(rows)
    1
    """

    def key(epoch: int) -> tuple[float, float]:
        rows = [curve[epoch] for curve in curves]
        accuracy = fmean(row.val_accuracy for row in rows if row.val_accuracy is not None)
        # Means that are equal on paper differ in their last bits.
        return -round(accuracy, 12), fmean(row.val_loss for row in rows if row.val_loss is not None)

    return min(range(min(len(curve) for curve in curves)), key=key)
