"""Early stopping: when a training no longer gets better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from orchestrator.hyperparameters import EarlyStoppingSpec


@dataclass
class Improvement:
    """The best value so far of what `train.early_stopping` watches, and the epochs since."""

    spec: EarlyStoppingSpec | None
    best: float = -math.inf
    stale: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether the patience has run out."""
        return self.spec is not None and self.stale >= self.spec.patience

    def note(self, val_loss: float, val_accuracy: float) -> None:
        """Take in one epoch; a value that only equals the best is none better."""
        if self.spec is None:
            return
        value = val_accuracy if self.spec.metric == "val_accuracy" else -val_loss
        if value > self.best + self.spec.min_delta:
            self.best, self.stale = value, 0
        else:
            self.stale += 1

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` of an equal one needs to go on from here."""
        return {"best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one was."""
        self.best, self.stale = state["best"], state["stale"]
