"""Derived seeds: stable, apart from each other, blind to the configuration."""

from __future__ import annotations

import inspect
import itertools
import random

import numpy as np
import torch

from orchestrator.seeding import (
    Purpose,
    derive_seed,
    derive_seeds,
    epoch_seed,
    seed_everything,
)


def test_seeds_are_stable_over_versions() -> None:
    assert derive_seed(0, 1, 2, Purpose.INITIALIZATION) == 1255492651909161771
    assert derive_seed(0, None, 2, Purpose.ORDER) == 1255289120294321253


def test_seeds_are_distinct_and_of_63_bits() -> None:
    arguments = itertools.product(range(3), [None, 0, 1, 2], range(5), Purpose)
    seeds = [derive_seed(*each) for each in arguments]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # torch's CPU generator looks at the lower half alone.
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)


def test_nothing_but_seed_folds_and_purpose_goes_in() -> None:
    parameters = list(inspect.signature(derive_seed).parameters)
    assert parameters == ["seed", "test_fold", "fold", "purpose"]


def test_all_purposes_at_once() -> None:
    seeds = derive_seeds(3, None, 2)
    assert seeds.order == derive_seed(3, None, 2, Purpose.ORDER)
    assert seeds.augmentation == derive_seed(3, None, 2, Purpose.AUGMENTATION)


def test_epochs_have_their_own_seeds() -> None:
    seeds = [epoch_seed(5, epoch) for epoch in range(100)] + [epoch_seed(6, 0)]
    assert len(set(seeds)) == 101


def test_every_global_generator_is_seeded() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    seed_everything(2**63 - 1)
    first = draws()
    second = draws()
    seed_everything(2**63 - 1)
    assert draws() == first
    assert all(a != b for a, b in zip(first, second, strict=True))
