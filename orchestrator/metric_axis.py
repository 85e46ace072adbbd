"""MetricAxis: how a metric stands on an axis and in a picture's words."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.configuration_scores import ConfigurationScores

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

    def score(self, scores: ConfigurationScores, *, unit: bool = True) -> str:
        """Mean and standard deviation of a configuration, e.g. `88.1 ± 0.6 %`.

        Without the deviation where there is one value only; empty where there is none.
        """
        if scores.mean is None or scores.std is None:
            return ""
        text = self.number(scores.mean)
        if len(scores.values) > 1:
            text += f" ± {self.number(scores.std)}"
        return f"{text} %" if unit and self.factor == 100 else text
