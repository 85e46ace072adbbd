"""The common epoch: one epoch for all folds of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from orchestrator.records import EpochRow


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
