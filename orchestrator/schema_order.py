"""The order of the keys in the schema of the sections that may hold search spaces."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from features.augment_spec import AugmentSpec, SpecAugmentSpec
from features.spec import FEATURE_KINDS
from orchestrator.hyperparameters import OPTIMIZERS, SCHEDULES, EarlyStoppingSpec, TrainSpec
from orchestrator.validation import field_names
from orchestrator.yaml_source import KeyPath, dotted

MODEL_KEYS = (
    *("name", "heads", "layers", "channels", "branches", "dropout", "init", "weights"),
    *("standardize", "params"),
)


def _merged_fields(models: Iterable[type[BaseModel]]) -> list[str]:
    """The keys of all models, those of each in its own order."""
    merged: list[str] = []
    for model in models:
        position = 0
        for name in field_names(model):
            if name not in merged:
                merged.insert(position, name)
            position = merged.index(name) + 1
    return merged


_ORDER: dict[str, list[str]] = {
    "": ["features", "model", "train"],
    "features": _merged_fields(FEATURE_KINDS.values()),
    "model": list(MODEL_KEYS),
    "train": field_names(TrainSpec),
    "train.optimizer": _merged_fields(OPTIMIZERS.values()),
    "train.schedule": _merged_fields(SCHEDULES.values()),
    "train.early_stopping": field_names(EarlyStoppingSpec),
    "train.augment": field_names(AugmentSpec),
    "train.augment.spec_augment": field_names(SpecAugmentSpec),
}


def rank(path: KeyPath) -> int:
    """Position of a key in the schema; keys it does not have keep the order they are written in."""
    names = _ORDER.get(dotted(path[:-1]), [])
    return names.index(str(path[-1])) if path[-1] in names else len(names)


def position(path: str) -> tuple[int, ...]:
    """What sorts dotted paths as the schema has them."""
    keys = path.split(".")
    return tuple(rank(tuple(keys[:depth])) for depth in range(1, len(keys) + 1))
