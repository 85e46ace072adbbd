"""Learning-rate schedules by specification."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
)

from orchestrator.hyperparameters import CosineSchedule, OneCycleSchedule, ScheduleSpec
from orchestrator.hyperparameters import PlateauSchedule as Plateau


class Schedule:
    """The learning rate of an optimizer over a training; None keeps it as it is.

    Told of every batch and every epoch, it knows which of them move it.
    """

    def __init__(
        self, spec: ScheduleSpec | None, optimizer: Optimizer, epochs: int, batches: int
    ) -> None:
        """Begin a schedule.

        Args:
            spec: which.
            optimizer: its rate is set to that of the first step.
            epochs: of the whole training.
            batches: steps of one epoch.
        """
        self._each_batch = isinstance(spec, OneCycleSchedule)
        self._plateau: ReduceLROnPlateau | None = None
        self._scheduler: LRScheduler | None = None
        if isinstance(spec, Plateau):
            self._plateau = ReduceLROnPlateau(
                optimizer, factor=spec.factor, patience=spec.patience, min_lr=spec.min_lr
            )
        elif spec is not None:
            self._scheduler = _scheduler(spec, optimizer, epochs, batches)

    def after_batch(self) -> None:
        """One optimizer step has been made."""
        if self._each_batch and self._scheduler is not None:
            self._scheduler.step()

    def after_epoch(self, val_loss: float | None) -> None:
        """One epoch has been trained, and validated where there is a validation split."""
        if self._plateau is not None:
            assert val_loss is not None
            self._plateau.step(val_loss)
        elif self._scheduler is not None and not self._each_batch:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` of an equal schedule needs to go on from here."""
        scheduler = self._plateau or self._scheduler
        return {} if scheduler is None else scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another schedule was."""
        scheduler = self._plateau or self._scheduler
        if scheduler is not None:
            scheduler.load_state_dict(state)


def _scheduler(spec: ScheduleSpec, optimizer: Optimizer, epochs: int, batches: int) -> LRScheduler:
    if isinstance(spec, OneCycleSchedule):
        steps, share = epochs * batches, spec.pct_start
        return OneCycleLR(
            optimizer,
            max_lr=float(optimizer.param_groups[0]["lr"]),
            total_steps=steps,
            # Torch divides by zero where the way up takes exactly one step.
            pct_start=share * (1 + 1e-9) if share * steps == 1 else share,
            div_factor=spec.div_factor,
            final_div_factor=spec.final_div_factor,
            cycle_momentum=False,
        )
    if isinstance(spec, CosineSchedule):
        return CosineAnnealingLR(optimizer, T_max=epochs, eta_min=spec.min_lr)
    assert not isinstance(spec, Plateau)
    return MultiStepLR(optimizer, milestones=list(spec.milestones), gamma=spec.gamma)
