"""How the weights of a model start."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from models.spec import Init

__all__ = ["initialize"]


def initialize(model: nn.Module, init: Init) -> None:
    """Draw the weights of a model anew, from PyTorch's global generator.

    Weight matrices of convolutions, linear layers and attention (its stacked query, key and
    value matrix taken as one, as PyTorch does) are drawn, their biases set to zero. Everything
    else, norms and learned tokens among it, keeps its values.

    Args:
        model: changed in place; a user's own model too.
        init: `random` leaves the model as it was built, with PyTorch's defaults; `xavier` is
            uniform (Glorot and Bengio 2010, eq. 16); `kaiming` is normal with the gain of ReLU
            and the fan-in (He et al. 2015, https://arxiv.org/abs/1502.01852, eq. 10).
    """
    if init == "random":
        return
    draw = _DRAWS[init]
    for weight, bias in _layers(model):
        draw(weight)
        if bias is not None:
            nn.init.zeros_(bias)


def _xavier(weight: torch.Tensor) -> None:
    nn.init.xavier_uniform_(weight)


def _kaiming(weight: torch.Tensor) -> None:
    nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")


_DRAWS: dict[str, Callable[[torch.Tensor], None]] = {"xavier": _xavier, "kaiming": _kaiming}


def _layers(model: nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Weight and bias of every layer in the model's own order."""
    for module in model.modules():
        if isinstance(module, _ConvNd | nn.Linear):
            yield module.weight, module.bias
        elif isinstance(module, nn.MultiheadAttention):
            yield from _attention(module)


def _attention(
    module: nn.MultiheadAttention,
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """The input projections; the output projection is a linear layer of its own."""
    stacked = module.in_proj_weight
    if stacked is not None:
        yield stacked, module.in_proj_bias
        return
    bias = module.in_proj_bias
    for weight in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight):
        yield weight, bias
