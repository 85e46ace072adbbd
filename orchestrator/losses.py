"""The loss that training minimises: cross-entropy with everything that may weigh on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import cross_entropy

from features.augment import Mixture
from models.outputs import AuxiliaryLogits


@dataclass(frozen=True)
class Targets:
    """The labels of a batch, `[b]`, and what was mixed into its clips."""

    labels: torch.Tensor
    mixture: Mixture | None

    def parts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Labels with their shares in each clip, which add up to 1."""
        if self.mixture is None:
            return [(self.labels, torch.ones_like(self.labels, dtype=torch.float32))]
        share = self.mixture.share
        return [(self.labels, share), (self.labels[self.mixture.partner], 1 - share)]

    def hits(self, predicted: torch.Tensor) -> torch.Tensor:
        """How many predictions are right, by the share of the predicted label."""
        right = [((predicted == labels) * share).sum() for labels, share in self.parts()]
        return torch.stack(right).sum()


class TrainingLoss:
    """Cross-entropy of a batch by class weights, label smoothing and the shares of mixed labels."""

    def __init__(
        self,
        labels: torch.Tensor,
        classes: int,
        *,
        smoothing: float,
        class_weights: Literal["none", "balanced"],
    ) -> None:
        """Prepare the loss.

        Args:
            labels: of the training split, int64 `[n]`; weights live on its device.
            classes: `k`.
            smoothing: share of the target spread over all classes.
            class_weights: `balanced` weighs a class by `n / (k * its clips)`.
        """
        self._smoothing = smoothing
        self._weights = None if class_weights == "none" else _balanced(labels, classes)

    def __call__(self, output: AuxiliaryLogits, targets: Targets) -> torch.Tensor:
        """The loss of a batch, auxiliary classifiers included by their weight."""
        loss = self._of(output.logits, targets)
        for auxiliary in output.auxiliary:
            loss = loss + output.weight * self._of(auxiliary, targets)
        return loss

    def _of(self, logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Mean cross-entropy of a batch, by class weights and shares of labels."""
        smoothing, weight = self._smoothing, self._weights
        if targets.mixture is None:
            return cross_entropy(logits, targets.labels, weight=weight, label_smoothing=smoothing)
        total = torch.zeros((), device=logits.device)
        mass = torch.zeros((), device=logits.device)
        for labels, share in targets.parts():
            each = cross_entropy(
                logits, labels, weight=weight, label_smoothing=smoothing, reduction="none"
            )
            total = total + (share * each).sum()
            mass = mass + (share if weight is None else share * weight[labels]).sum()
        return total / mass


def _balanced(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights float32 `[k]`; a class without clips is taken to have one."""
    counts = torch.bincount(labels.cpu(), minlength=classes)
    weights = len(labels) / (classes * counts.clamp(min=1))
    return weights.to(torch.float32).to(labels.device)
