"""Selection: the epoch of a training that counts, by the clips of one validation split."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

from orchestrator.batches import ClipSet
from orchestrator.evaluation import Evaluation


@dataclass(frozen=True)
class Candidate:
    """The epoch that counts so far.

    Attributes:
        epoch: counted from 0.
        val: the validation split after it; None without one.
        test: the test split after it, where it was looked at.
        weights: the model's then; None where no later epoch can fail to count.
    """

    epoch: int
    val: Evaluation | None
    test: Evaluation | None
    weights: dict[str, Any] | None


class Selection:
    """Keeps the epoch that `train.select` names; without a validation split, the last one.

    Attributes:
        clips: of the validation split, or None.
        chosen: the epoch that counts so far; None before the first.
    """

    def __init__(self, clips: ClipSet | None, select: str) -> None:
        """Begin before the first epoch; `select` is `best` or `last`."""
        self.clips = clips
        self.chosen: Candidate | None = None
        self._best = select == "best"

    def note(
        self, epoch: int, model: nn.Module, val: Evaluation | None, test: Evaluation | None
    ) -> None:
        """Take in an epoch: the best is the one of the highest accuracy, then the lowest loss."""
        if val is None or not self._best:
            self.chosen = Candidate(epoch, val, test, weights=None)
            return
        best = self.chosen.val if self.chosen else None
        if best is None or (-val.accuracy, val.loss) < (-best.accuracy, best.loss):
            weights = copy.deepcopy(model.state_dict())
            self.chosen = Candidate(epoch, val, test, weights)

    def state_dict(self) -> dict[str, Any] | None:
        """Tensors and plain values; None before the first epoch."""
        chosen = self.chosen
        if chosen is None:
            return None
        return {
            "epoch": chosen.epoch,
            "val": None if chosen.val is None else vars(chosen.val),
            "test": None if chosen.test is None else vars(chosen.test),
            "weights": chosen.weights,
        }

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on where an equal one was."""
        if state is None:
            self.chosen = None
            return
        val, test = (
            None if state[split] is None else Evaluation(**state[split])
            for split in ("val", "test")
        )
        self.chosen = Candidate(state["epoch"], val, test, state["weights"])
