"""Optimizers by specification."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from orchestrator.hyperparameters import AdamSpec, OptimizerSpec, SgdSpec


def make_optimizer(spec: OptimizerSpec, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimizer of a specification over the parameters that are to be trained.

    Raises:
        ValueError: no parameter is trainable.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter")
    if isinstance(spec, SgdSpec):
        return SGD(
            trainable,
            lr=spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
        )
    if isinstance(spec, AdamSpec):
        return Adam(trainable, lr=spec.lr, weight_decay=spec.weight_decay)
    return AdamW(trainable, lr=spec.lr, weight_decay=spec.weight_decay)
