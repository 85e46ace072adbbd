"""What a model may give in training mode beside plain logits."""

from __future__ import annotations

from typing import NamedTuple

import torch


class AuxiliaryLogits(NamedTuple):
    """Logits with those of auxiliary classifiers; given in training mode only.

    The loss is that of `logits` plus `weight` times that of each of `auxiliary`
    (Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 5).

    Attributes:
        logits: float `[b, k]`.
        auxiliary: float `[b, k]` each.
        weight: 0.3 in the paper.
    """

    logits: torch.Tensor
    auxiliary: tuple[torch.Tensor, ...]
    weight: float = 0.3
