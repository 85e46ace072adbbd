"""TrainSpec: how a model is trained; every field is part of a trial's identity."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

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
            raise PydanticCustomError(
                "constraint",
                "{field}: found {found}; allowed {allowed}",
                {"field": "nesterov", "found": "true", "allowed": "false, or a momentum above 0"},
            )
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


class TrainSpec(_Spec):
    """How a model is trained.

    Attributes:
        epochs: passes over the training split.
        batch_size: clips a step; a last batch of one clip joins the one before.
        optimizer: the update rule.
        schedule: of the learning rate; none yet, it is constant.
        select: the epoch whose metrics and predictions count: the last one, or the one of the
            highest validation accuracy (ties: the lower validation loss, then the earlier).
        early_stopping: none yet.
        augment: none yet.
        label_smoothing: share of the target spread over all classes, in training only.
        class_weights: `balanced` weighs the training loss by the inverse class frequency.
        precision: of the arithmetic.
        deterministic: ask torch for deterministic algorithms on a GPU; a CPU always is.
        compile: not yet.
        test_every_epoch: evaluate the test split after each epoch, for plots only.
    """

    epochs: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 10
    batch_size: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 16
    optimizer: OptimizerSpec = Field(default_factory=SgdSpec, discriminator="name")
    schedule: None = None
    select: Literal["last", "best"] = "last"
    early_stopping: None = None
    augment: None = None
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["float32"] = "float32"
    deterministic: Annotated[bool, Field(strict=True)] = False
    compile: Literal[False] = False
    test_every_epoch: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="before")
    @classmethod
    def _default_optimizer(cls, data: Any) -> Any:
        optimizer = data.get("optimizer") if isinstance(data, dict) else None
        if isinstance(optimizer, dict) and "name" not in optimizer:
            return data | {"optimizer": {"name": "sgd"} | optimizer}
        return data
