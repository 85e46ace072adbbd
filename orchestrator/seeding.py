"""Seeds of a trial's random generators, derived so that configurations meet equal draws."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Purpose(StrEnum):
    """What a random generator is for."""

    INITIALIZATION = "initialization"
    """The first weights."""
    ORDER = "order"
    """The order of the training clips."""
    DROPOUT = "dropout"
    """Whatever the model draws while it is trained."""
    AUGMENTATION = "augmentation"
    """Changes of the training clips."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """The seeds of one trial, one a purpose."""

    initialization: int
    order: int
    dropout: int
    augmentation: int


def derive_seed(seed: int, test_fold: int | None, fold: int | None, purpose: Purpose) -> int:
    """A seed in 0..2^63 - 1 that depends on nothing but the four arguments.

    The configuration is left out on purpose: two configurations on one fold start from the same
    draws and see the clips in the same order, so that their difference is their own.
    """
    return _hashed(f"{seed}/{test_fold}/{fold}/{purpose.value}")


def derive_seeds(seed: int, test_fold: int | None, fold: int | None) -> Seeds:
    """The seeds of every purpose."""
    return Seeds(**{p.value: derive_seed(seed, test_fold, fold, p) for p in Purpose})


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch, so that an epoch's draws depend on no epoch before it."""
    return _hashed(f"{seed}/{epoch}")


def batch_seed(seed: int, epoch: int, batch: int) -> int:
    """A seed for one batch of an epoch."""
    return _hashed(f"{seed}/{epoch}/{batch}")


def seed_everything(value: int) -> None:
    """Seed the global generators of `random`, numpy and torch (CPU and every GPU)."""
    import random

    import numpy as np
    import torch

    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def _hashed(text: str) -> int:
    digest = hashlib.sha256(f"foldgrid/1/{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
