"""MetricAxis: how a metric stands on an axis and in a picture's words."""

from __future__ import annotations

from dataclasses import dataclass

_SPLITS = {"train": "training", "val": "validation", "test": "test"}
_SCORES = {
    "accuracy": "accuracy",
    "loss": "loss per clip",
    "precision": "precision, macro",
    "recall": "recall, macro",
    "f1": "F1, macro",
    "auroc": "AUROC, macro",
    "precision_weighted": "precision, weighted",
    "recall_weighted": "recall, weighted",
    "f1_weighted": "F1, weighted",
}


@dataclass(frozen=True)
class MetricAxis:
    """A metric in print: accuracies in percent, everything else as it is.

    Attributes:
        metric: its full name, e.g. `val_accuracy`.
    """

    metric: str

    @property
    def factor(self) -> float:
        """What to multiply a value by."""
        return 100.0 if self.metric.endswith("_accuracy") else 1.0

    @property
    def words(self) -> str:
        """The metric's name, e.g. `validation accuracy`.

        >>> MetricAxis("val_accuracy").words, MetricAxis("val_loss").label
        ('validation accuracy', 'validation loss per clip')
        """
        split, _, score = self.metric.partition("_")
        return f"{_SPLITS.get(split, split)} {_SCORES.get(score, score)}"

    @property
    def label(self) -> str:
        """The name with its unit, for an axis."""
        return f"{self.words} (%)" if self.factor == 100 else self.words

    def number(self, value: float) -> str:
        """A value without its unit: one decimal for percent, three for the rest."""
        return f"{value * self.factor:.{1 if self.factor == 100 else 3}f}"

    def mean_and_std(self, mean: float, std: float) -> str:
        """Both, with the unit.

        >>> MetricAxis("val_accuracy").mean_and_std(0.8812, 0.0062)
        '88.1 ± 0.6 %'
        """
        unit = " %" if self.factor == 100 else ""
        return f"{self.number(mean)} ± {self.number(std)}{unit}"
