"""The specification as it is stored: every default filled in, search spaces as written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from features.augment_spec import AugmentSpec, SpecAugmentSpec
from features.spec import FEATURE_KINDS
from models.spec import model_class
from orchestrator.hyperparameters import OPTIMIZERS, SCHEDULES, EarlyStoppingSpec, TrainSpec
from orchestrator.specification import FORMAT_VERSION, Settings
from orchestrator.trials import canonical
from orchestrator.validation import field_names

SECTIONS = (
    "format_version",
    *("name", "seed", "repeats", "data", "features", "folds", "model", "train"),
    *("search", "resources", "checkpoint", "execution", "trackers"),
)
_SPACES = ("grid", "choice")
FREE = ("resources", "execution", "checkpoint", "trackers", "data.root", "data.manifest")
"""Paths that may change between two calls on one run directory."""


def document(data: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The specification with its defaults filled in, in schema order."""
    fixed = settings.model_dump(mode="json", by_alias=True)
    filled = {
        "features": _fill_tagged(data.get("features", {}), "kind", FEATURE_KINDS.get),
        "model": _fill_tagged(data.get("model", {}), "name", model_class),
        "train": _fill_train(data.get("train", {})),
    }
    merged = {"format_version": FORMAT_VERSION} | fixed | filled
    return {key: merged[key] for key in SECTIONS}


def _fill_tagged(value: Any, tag: str, class_of: Callable[[str], type[BaseModel] | None]) -> Any:
    """Defaults of the class that the tag names, in every branch of a space."""

    def fill(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        # Where the tag itself is a space, only what all its classes share can be filled in.
        classes = [class_of(name) for name in _options(value.get(tag)) if isinstance(name, str)]
        known = [model for model in classes if model is not None]
        return _fill(value, known) if known else value

    return _in_branches(value, fill)


def _fill_train(value: Any) -> Any:
    def fill(value: Any) -> Any:
        filled = _fill(value, [TrainSpec])
        for key, change in _TRAIN.items():
            filled[key] = _in_branches(filled[key], change)
        return filled

    return _in_branches(value, fill)


def _fill_optimizer(value: Any) -> Any:
    if isinstance(value, dict) and not set(value) & {"name", "grid", "choice"}:
        value = {"name": "sgd"} | value
    return _fill_tagged(value, "name", OPTIMIZERS.get)


def _fill_schedule(value: Any) -> Any:
    return _fill_tagged({"name": value} if isinstance(value, str) else value, "name", SCHEDULES.get)


def _fill_stopping(value: Any) -> Any:
    return _fill(value, [EarlyStoppingSpec]) if isinstance(value, dict) else value


def _fill_augment(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    filled = _fill(value, [AugmentSpec])
    return filled | {"spec_augment": _in_branches(filled["spec_augment"], _fill_masks)}


def _fill_masks(value: Any) -> Any:
    if isinstance(value, bool):
        value = {} if value else None
    return _fill(value, [SpecAugmentSpec]) if isinstance(value, dict) else value


_TRAIN: dict[str, Callable[[Any], Any]] = {
    "optimizer": _fill_optimizer,
    "schedule": _fill_schedule,
    "early_stopping": _fill_stopping,
    "augment": _fill_augment,
}


def _in_branches(value: Any, fill: Callable[[Any], Any]) -> Any:
    """A value filled in, in every branch of a space.

    A branch that would become equal to one before it stays as it was written: a space may not
    name a value twice, and the stored specification must be read again.
    """
    if not (isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _SPACES):
        return fill(value)
    word, options = next(iter(value.items()))
    branches: list[Any] = []
    for option in options:
        filled = _in_branches(option, fill)
        known = {canonical(branch) for branch in branches}
        branches.append(option if canonical(filled) in known else filled)
    return {word: branches}


def _options(value: Any) -> list[Any]:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("grid", "choice"):
        return [n for option in next(iter(value.values())) for n in _options(option)]
    return [value]


def _fill(value: dict[str, Any], models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    shared = [n for n in field_names(models[0]) if all(n in field_names(m) for m in models)]
    filled: dict[str, Any] = {}
    for name in [*shared, *(key for key in value if key not in shared)]:
        if name in value:
            filled[name] = value[name]
            continue
        defaults = [_default(model, name) for model in models]
        if all(default == defaults[0] for default in defaults):
            filled[name] = defaults[0]
    return filled


def _default(model: type[BaseModel], name: str) -> Any:
    default = model.model_fields[name].get_default(call_default_factory=True)
    return default.model_dump(mode="json") if isinstance(default, BaseModel) else default


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each path whose value changes results and differs between two documents."""
    before, after = _compared(old), _compared(new)
    lines = []
    for path in dict.fromkeys([*before, *after]):
        left, right = before.get(path), after.get(path)
        if canonical(left) != canonical(right):
            lines.append(f"{path}: {_text(left)} in the run directory, {_text(right)} now")
    return lines


def digest(document: Mapping[str, Any]) -> str:
    """Hash of all that `differences` compares: equal for documents without differences."""
    compared = {path: value for path, value in _compared(document).items() if value is not None}
    return hashlib.sha256(canonical(compared).encode()).hexdigest()


def _compared(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        path: value
        for path, value in _flat(_placeless(document))
        if not any(path == free or path.startswith(f"{free}.") for free in FREE)
    }


def _placeless(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with names of files of weights: their content tells them apart, elsewhere."""

    def names(value: Any, weights: bool) -> Any:
        if isinstance(value, dict):
            return {k: names(v, weights or k == "weights") for k, v in value.items()}
        if isinstance(value, list):
            return [names(v, weights) for v in value]
        return PurePath(value).name if weights and isinstance(value, str) else value

    return dict(document) | {"model": names(document.get("model", {}), weights=False)}


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            flat.extend(_flat(value, f"{prefix}{key}."))
        else:
            flat.append((f"{prefix}{key}", value))
    return flat


def _text(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 200 else text[:197] + "..."
