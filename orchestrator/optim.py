"""Optimizers by specification."""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from orchestrator.hyperparameters import AdamSpec, OptimizerSpec, SgdSpec

_Kind = TypeVar("_Kind", bound=Optimizer)


def _eager(kind: type[_Kind]) -> type[_Kind]:
    """The optimizer as it is when nothing compiles it.

    torch imports its compiler, which takes a second or two of each process, to tell it to leave
    optimizers alone: here they are taken from under what does that.
    """
    for method in (kind.add_param_group, kind.zero_grad, kind.state_dict, kind.load_state_dict):
        plain = inspect.unwrap(method)
        # Where torch looks first, and keeps what the compiler has made of it.
        plain.__dict__.setdefault("__dynamo_disable", plain)
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {"step": step})


_SGD, _Adam, _AdamW = _eager(SGD), _eager(Adam), _eager(AdamW)


def make_optimizer(spec: OptimizerSpec, model: nn.Module) -> Optimizer:
    """The optimizer of a specification over the model's trainable parameters.

    Raises:
        ValueError: no parameter is trainable.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter")
    fused = _can_be_fused(model, trainable)
    if isinstance(spec, SgdSpec):
        return _SGD(
            trainable,
            lr=spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
            fused=fused,
        )
    kind = _Adam if isinstance(spec, AdamSpec) else _AdamW
    return kind(trainable, lr=spec.lr, weight_decay=spec.weight_decay, fused=fused)


def _can_be_fused(model: nn.Module, trainable: list[nn.Parameter]) -> bool:
    """Whether one pass over the memory can do a whole step, two to three times as fast.

    A user's model may have complex parameters, an embedding with sparse gradients, or a view of
    other weights as a parameter: there the pass would go over memory that is not the parameter's.
    """
    sparse = any(getattr(module, "sparse", False) is True for module in model.modules())
    known = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in trainable)
    return known and not sparse and all(map(_is_dense, trainable))


def _is_dense(parameter: nn.Parameter) -> bool:
    """Whether its values fill a piece of memory, each once."""
    if parameter.is_contiguous():
        return True
    return parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
