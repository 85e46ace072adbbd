"""TrainSpec: how a model is trained; every field is part of a trial's identity."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from features.augment_spec import AugmentSpec
from orchestrator.specification import constraint

NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
LearningRate = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Momentum = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SgdSpec(_Spec):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"] = "sgd"
    lr: LearningRate = 0.01
    momentum: Momentum = 0.0
    nesterov: Annotated[bool, Field(strict=True)] = False
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdSpec:
        if self.nesterov and self.momentum == 0:
            raise constraint("nesterov", "true", "false, or a momentum above 0")
        return self


class AdamSpec(_Spec):
    """Adam (Kingma and Ba 2015; torch.optim.Adam)."""

    name: Literal["adam"] = "adam"
    lr: LearningRate = 0.001
    weight_decay: NonNegative = 0.0


class AdamWSpec(_Spec):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019; torch.optim.AdamW)."""

    name: Literal["adamw"] = "adamw"
    lr: LearningRate = 0.001
    weight_decay: NonNegative = 0.01


OptimizerSpec = SgdSpec | AdamSpec | AdamWSpec

OPTIMIZERS: dict[str, type[SgdSpec] | type[AdamSpec] | type[AdamWSpec]] = {
    "sgd": SgdSpec,
    "adam": AdamSpec,
    "adamw": AdamWSpec,
}


Epochs = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class StepSchedule(_Spec):
    """The learning rate is multiplied by `gamma` at each milestone.

    Attributes:
        milestones: epochs, counted from 0, that start with the new rate; ascending.
        gamma: the factor.
    """

    name: Literal["step"] = "step"
    milestones: Annotated[list[Epochs], Field(min_length=1, max_length=1000)]
    gamma: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 0.1

    @model_validator(mode="after")
    def _ascending(self) -> StepSchedule:
        for i, (before, after) in enumerate(pairwise(self.milestones)):
            if after <= before:
                raise constraint(f"milestones.{i + 1}", after, f"an epoch after {before}")
        return self


class CosineSchedule(_Spec):
    """Half a cosine from the learning rate down to `min_lr`, a step an epoch.

    Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts.
    """

    name: Literal["cosine"] = "cosine"
    min_lr: NonNegative = 0.0


class OneCycleSchedule(_Spec):
    """Up to the learning rate and down again, a step a batch (torch's OneCycleLR).

    Smith and Topin 2018, https://arxiv.org/abs/1708.07120; the momentum stays as it is.

    Attributes:
        pct_start: share of the steps that go up.
        div_factor: the rate starts at the learning rate divided by it.
        final_div_factor: and ends at that start divided by this.
    """

    name: Literal["one_cycle"] = "one_cycle"
    pct_start: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)] = 0.3
    div_factor: Annotated[float, Field(strict=True, ge=1, allow_inf_nan=False)] = 25.0
    final_div_factor: Annotated[float, Field(strict=True, ge=1, allow_inf_nan=False)] = 1e4


class PlateauSchedule(_Spec):
    """The learning rate is multiplied by `factor` when the validation loss stops falling.

    Attributes:
        factor: the factor.
        patience: epochs without a lower loss, by at least 0.01 %, that are let pass.
        min_lr: no lower than this.
    """

    name: Literal["plateau"] = "plateau"
    factor: Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)] = 0.1
    patience: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 10
    min_lr: NonNegative = 0.0


ScheduleSpec = StepSchedule | CosineSchedule | OneCycleSchedule | PlateauSchedule

SCHEDULES: dict[str, type[ScheduleSpec]] = {
    "step": StepSchedule,
    "cosine": CosineSchedule,
    "one_cycle": OneCycleSchedule,
    "plateau": PlateauSchedule,
}


class EarlyStoppingSpec(_Spec):
    """The end of a training that no longer gets better on the validation split.

    Attributes:
        patience: the epochs without a better value after which training ends.
        metric: what has to get better.
        min_delta: by more than how much.
    """

    patience: Epochs = 10
    metric: Literal["val_loss", "val_accuracy"] = "val_loss"
    min_delta: NonNegative = 0.0


class TrainSpec(_Spec):
    """How a model is trained.

    Attributes:
        epochs: passes over the training split.
        batch_size: clips a step; a last batch of one clip joins the one before.
        optimizer: the update rule.
        schedule: of the learning rate; null leaves it as it is.
        select: the epoch whose metrics and predictions count: the last one, or the one of the
            highest validation accuracy (ties: the lower validation loss, then the earlier).
        early_stopping: ends a training before its last epoch; null never does.
        augment: random changes of the training clips.
        label_smoothing: share of the target spread over all classes, in training only.
        class_weights: `balanced` weighs the training loss by the inverse class frequency.
        precision: of the model's arithmetic; `bf16` is mixed precision (torch.autocast), the
            weights, the loss and the metrics stay float32. On a GPU, `float32` rounds the factors
            of products and convolutions to TF32, unless `deterministic`.
        deterministic: ask torch for deterministic algorithms on a GPU, and for products in full
            float32 there; a CPU always is.
        compile: compile the model for training (torch.compile); needs a C++ compiler and, on a
            GPU, triton. On a CPU foldgrid's own models lose by it: `cnn1d` compiles for ten
            seconds and more a trial, and an epoch then takes a fifth longer.
        test_every_epoch: evaluate the test split after each epoch, for plots only.
    """

    epochs: Epochs = 10
    batch_size: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 16
    optimizer: OptimizerSpec = Field(default_factory=SgdSpec, discriminator="name")
    schedule: Annotated[ScheduleSpec, Field(discriminator="name")] | None = None
    select: Literal["last", "best"] = "last"
    early_stopping: EarlyStoppingSpec | None = None
    augment: AugmentSpec | None = None
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["float32", "bf16"] = "float32"
    deterministic: Annotated[bool, Field(strict=True)] = False
    compile: Annotated[bool, Field(strict=True)] = False
    test_every_epoch: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        optimizer = data.get("optimizer")
        if isinstance(optimizer, dict) and "name" not in optimizer:
            data["optimizer"] = {"name": "sgd"} | optimizer
        if isinstance(data.get("schedule"), str):
            data["schedule"] = {"name": data["schedule"]}
        return data

    @model_validator(mode="after")
    def _a_schedule_ends_below_the_rate(self) -> TrainSpec:
        lr = self.optimizer.lr
        if (
            isinstance(self.schedule, CosineSchedule | PlateauSchedule)
            and self.schedule.min_lr > lr
        ):
            allowed = f"at most the optimizer's lr, {lr:g}"
            raise constraint("schedule.min_lr", self.schedule.min_lr, allowed)
        return self

    @model_validator(mode="after")
    def _no_augmentation_is_null(self) -> TrainSpec:
        # One configuration, however it is written.
        if self.augment is not None and not self.augment.changes_anything:
            object.__setattr__(self, "augment", None)
        return self
