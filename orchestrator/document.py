"""The specification as it is stored: every default filled in, search spaces as written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from features.augment_spec import AugmentSpec
from features.spec import FEATURE_KINDS
from models.spec import model_class
from orchestrator.hyperparameters import OPTIMIZERS, SCHEDULES, EarlyStoppingSpec, TrainSpec
from orchestrator.specification import FORMAT_VERSION, Settings
from orchestrator.trials import canonical
from orchestrator.validation import field_names

SPACE_SECTIONS = ("features", "model", "train")
SECTIONS = (
    "format_version",
    *("name", "seed", "repeats", "data", "features", "folds", "model", "train"),
    *("search", "resources", "checkpoint", "execution", "trackers"),
)
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
    if not isinstance(value, dict):
        return value
    word = next(iter(value), "")
    if len(value) == 1 and word in ("grid", "choice"):
        return {word: [_fill_tagged(option, tag, class_of) for option in value[word]]}
    # Where the tag itself is a space, only what all its classes share can be filled in.
    classes = [class_of(name) for name in _options(value.get(tag)) if isinstance(name, str)]
    known = [model for model in classes if model is not None]
    return _fill(value, known) if known else value


def _fill_train(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("grid", "choice"):
        word = next(iter(value))
        return {word: [_fill_train(option) for option in value[word]]}
    filled = _fill(value, [TrainSpec])
    optimizer = filled["optimizer"]
    if isinstance(optimizer, dict) and not set(optimizer) & {"name", "grid", "choice"}:
        optimizer = {"name": "sgd"} | optimizer
    filled["optimizer"] = _fill_tagged(optimizer, "name", OPTIMIZERS.get)
    filled["schedule"] = _fill_tagged(filled["schedule"], "name", SCHEDULES.get)
    filled["early_stopping"] = _fill_plain(filled["early_stopping"], EarlyStoppingSpec)
    filled["augment"] = _fill_plain(filled["augment"], AugmentSpec)
    return filled


def _fill_plain(value: Any, model: type[BaseModel]) -> Any:
    """Defaults of the one class that a mapping can be, in every branch of a space."""
    if not isinstance(value, dict):
        return value
    word = next(iter(value), "")
    if len(value) == 1 and word in ("grid", "choice"):
        return {word: [_fill_plain(option, model) for option in value[word]]}
    return _fill(value, [model])


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
    before, after = dict(_flat(old)), dict(_flat(new))
    lines = []
    for path in dict.fromkeys([*before, *after]):
        if any(path == free or path.startswith(f"{free}.") for free in FREE):
            continue
        left, right = before.get(path), after.get(path)
        if canonical(left) != canonical(right):
            lines.append(f"{path}: {_text(left)} in the run directory, {_text(right)} now")
    return lines


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
