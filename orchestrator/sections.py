"""Sections: the values that `features`, `model` and `train` can take, their spaces expanded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from features.spec import FEATURE_KINDS
from models.spec import MODEL_NAMES, model_class
from orchestrator.errors import Fault
from orchestrator.hyperparameters import TrainSpec
from orchestrator.schema_order import rank
from orchestrator.space import (
    Chooser,
    Draw,
    Node,
    Space,
    SpaceParser,
    count,
    expand,
    plain,
    source_path,
)
from orchestrator.validation import unknown_value, validate
from orchestrator.yaml_source import KeyPath, YamlSource

MOST_CONFIGURATIONS = 100_000


def expand_section(
    name: str, source: YamlSource, random: bool, draws: Sequence[Chooser]
) -> tuple[list[list[BaseModel]], list[Fault]]:
    """The validated values of one section, a list a draw, and every fault.

    Args:
        name: `features`, `model` or `train`.
        source: the specification.
        random: whether drawn spaces are allowed.
        draws: which values spaces take.
    """
    parser = SpaceParser(source, rank)
    node = parser.parse(source.data.get(name, {}), (name,), (name,))
    faults = list(parser.faults)
    if not random:
        faults += [_needs_random(space, source) for space in parser.sampled]
    if count(node) * max(len(draws), 1) > MOST_CONFIGURATIONS:
        found = f"{count(node) * max(len(draws), 1)} values"
        return [], [*faults, source.fault((name,), found, f"at most {MOST_CONFIGURATIONS}")]
    section = _Section(name, source)
    if parser.sampled or not draws:
        # The bounds and every branch, drawn or not: a wrong one should be found at once.
        for probe in (Draw(probe="low"), Draw(probe="high")):
            section.values(node, probe)
    values = [] if section.faults else [section.values(node, draw) for draw in draws]
    return values, [*faults, *unrelated(section.faults, [fault.path for fault in faults])]


def _needs_random(space: Space, source: YamlSource) -> Fault:
    allowed = "grid with search.method grid; drawn spaces need search.method random or optuna"
    return source.fault(space.path, space.kind, allowed)


@dataclass
class _Section:
    """Validates the values of one section, each distinct one once."""

    name: str
    source: YamlSource
    seen: dict[str, BaseModel | None] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def values(self, node: Node, draw: Chooser) -> list[BaseModel]:
        """What the section can be for one draw; invalid ones add to the faults."""
        found = []
        for tree in expand(node, draw):
            data = plain(tree)
            # Not JSON: a value may be NaN or an infinity at this point.
            key = repr(data)
            if key not in self.seen:
                self.seen[key], faults = self._validate(data, tree)
                self.faults += faults
            value = self.seen[key]
            if value is not None:
                found.append(value)
        return found

    def _validate(self, data: Any, tree: Node) -> tuple[BaseModel | None, list[Fault]]:
        name = self.name

        def locate(path: KeyPath) -> KeyPath:
            return source_path(tree, path[1:])

        if not isinstance(data, dict):
            return None, [self.source.fault(locate((name,)), str(data), "a mapping")]
        if name == "train":
            return validate(TrainSpec, data, (name,), self.source, locate)
        tag = "kind" if name == "features" else "name"
        model, allowed = _class_of(name, data.get(tag))
        if model is None:
            place = locate((name, tag))
            return None, [unknown_value(place, data.get(tag), allowed, self.source)]
        return validate(model, data, (name,), self.source, locate)


def unrelated(faults: list[Fault], paths: list[str]) -> list[Fault]:
    """The faults that do not follow from one already found at, above or below their path."""
    return [f for f in faults if not any(_related(f.path, path) for path in paths)]


def _related(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def _class_of(section: str, name: Any) -> tuple[type[BaseModel] | None, list[str]]:
    if section == "features":
        return (FEATURE_KINDS.get(name) if isinstance(name, str) else None), list(FEATURE_KINDS)
    return (model_class(name) if isinstance(name, str) else None), list(MODEL_NAMES)
