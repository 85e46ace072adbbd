"""Configuration, Trial and Plan: what is to be run, in order, and its JSON form on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any

from pydantic import TypeAdapter

from features.spec import FeatureSpec
from models.spec import InputSpec, Layout, ModelSpec
from orchestrator.hyperparameters import TrainSpec
from orchestrator.protocols import Protocol
from orchestrator.schema_order import position

IDENTITY_VERSION = 1
"""Part of every configuration's hash; raised when the same fields come to mean something else."""

Value = str | int | float | bool | list[Any] | dict[str, Any]

_LAYOUTS: dict[str, Layout] = {
    "waveform": "samples",
    "log_mel": "bands",
    "mfcc": "bands",
    "mel_image": "image",
    "clip_statistics": "statistics",
}


@dataclass(frozen=True)
class Configuration:
    """One point of the search space: everything that can vary, apart from fold and seed.

    Attributes:
        features: resolved feature parameters.
        model: resolved model parameters.
        train: resolved training parameters; None for an estimator, which has none.
        source: hash of the user's file that the model comes from, his own code or weights; empty
            for a model that comes with foldgrid and starts without weights.
    """

    features: FeatureSpec
    model: ModelSpec
    train: TrainSpec | None
    source: str = ""

    @cached_property
    def identity(self) -> str:
        """Text that is equal for equal configurations and no others."""
        return canonical([IDENTITY_VERSION, self._placeless()])

    @cached_property
    def id(self) -> str:
        """`<model>-<8 hex>`, the hash over every resolved parameter."""
        digest = hashlib.sha256(self.identity.encode()).hexdigest()
        return f"{file_name(self.model.name)}-{digest[:8]}"

    @property
    def epochs(self) -> int:
        """The most that a trial runs; what is fitted in one go has one."""
        return 1 if self.train is None else self.train.epochs

    @property
    def inputs(self) -> InputSpec:
        """What the model gets to see of a clip."""
        return InputSpec(_LAYOUTS[self.features.kind], self.features.shape)

    @cached_property
    def parameters(self) -> dict[str, Value]:
        """Resolved values by dotted path, in schema order; a null counts as absent.

        A parameter that is a mapping contributes its leaves, one that is a list itself.
        """
        data = self._placeless()
        # The hash of a user's file tells configurations apart, but is no parameter.
        data.pop("source", None)
        return dict(_leaves(data))

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values; `from_json` reads it back equal."""
        data = {
            "features": self.features.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
        }
        if self.train is not None:
            data["train"] = self.train.model_dump(mode="json")
        return data | {"source": self.source} if self.source else data

    def _placeless(self) -> dict[str, Any]:
        """The JSON form with name and hash of a file of weights in place of its path.

        Identities and tables are the same in any folder, and two files of one name are told
        apart. A key that came later stays out while it is null: what was run before keeps its
        identity.
        """
        data = self.to_json()
        if data["features"]["normalize"] is None:
            del data["features"]["normalize"]
        weights = data["model"].get("weights")
        if weights is not None:
            name = PurePath(weights).name
            data["model"]["weights"] = f"{name}@{self.source[:8]}" if self.source else name
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Configuration:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError, KeyError: not a configuration of this version.
        """
        train = data.get("train")
        return cls(
            features=_FEATURES.validate_python(data["features"]),
            model=_MODEL.validate_python(data["model"]),
            train=None if train is None else TrainSpec.model_validate(train),
            source=data.get("source", ""),
        )


@dataclass(frozen=True)
class Trial:
    """One configuration on one fold with one seed.

    Attributes:
        configuration: the point of the search space.
        test_fold: the fold that no choice sees; None without one.
        fold: the validation fold; None for an outer trial of a nested cross-validation, which
            trains on all folds but the test fold.
        seed: of this repeat.
    """

    configuration: Configuration
    test_fold: int | None
    fold: int | None
    seed: int

    @cached_property
    def id(self) -> str:
        """`<configuration>-t<test fold>-f<fold>-s<seed>`: `t0` without a test fold.

        `fnone` without a validation fold, since there may be a fold 0.
        """
        fold = "none" if self.fold is None else self.fold
        return f"{self.configuration.id}-t{self.test_fold or 0}-f{fold}-s{self.seed}"


@dataclass(frozen=True)
class Suggestion:
    """What Optuna has picked, and what it needs to know of that later.

    Attributes:
        configuration: None where the values picked do not go together.
        params: value by the name of a space; of a list of values the index.
        distributions: likewise, each as JSON text of Optuna's.
        attributes: what its sampler has noted.
        problem: why there is no configuration; empty otherwise.
    """

    configuration: Configuration | None
    params: dict[str, Any]
    distributions: dict[str, str]
    attributes: dict[str, Any]
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """The suggestion as JSON values; `from_json` reads it back equal."""
        configuration = None if self.configuration is None else self.configuration.to_json()
        return vars(self) | {"configuration": configuration}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Suggestion:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError, KeyError, TypeError: not a suggestion of this version.
        """
        found = data["configuration"]
        configuration = None if found is None else Configuration.from_json(found)
        return cls(**data | {"configuration": configuration})


@dataclass(frozen=True)
class ClipRow:
    """What the tables need to know of a clip; the position in the plan is its feature row.

    Attributes:
        path: relative to the data root.
        label: class index.
        problem: why the clip was left out (`data.on_bad_clip: skip`); empty for a good one.
    """

    path: str
    label: int
    problem: str = ""


@dataclass(frozen=True)
class NearDuplicateRow:
    """Two clips of near-identical audio in different folds.

    Attributes:
        clip: position in the plan.
        fold: of the clip.
        other: position of a later one.
        other_fold: its fold.
        similarity: share of equal fingerprint bits, see `features.near_duplicates`.
    """

    clip: int
    fold: int
    other: int
    other_fold: int
    similarity: float


@dataclass(frozen=True)
class Plan:
    """The ordered list of trials, and what their tables need beside the records.

    Attributes:
        name: of the sweep.
        metric: what configurations are ranked by, e.g. `val_accuracy`.
        mode: `max` or `min`.
        classes: names in label order.
        clips: every clip in feature-row order.
        trials: ordered by test fold, validation fold, configuration, seed.
        outer: with protocol `nested`, the trials of the configurations that were chosen, by test
            fold and seed; empty until then.
        pruned: trials that are not run, or not to their end, by identity; see `search.pruner`.
        to_come: how many more trials there will be at most, which results are yet to choose.
        suggestions: with `search.method: optuna`, those that have been made, in order.
        merged: how many equal configurations were merged.
        protocol: `folds.protocol`, what folds are for.
        leakage_allowed: `data.allow_leakage`; every table then says so.
        specification: `document.digest` of what the plan was made from.
        data: likewise `Dataset.fingerprint`.
        near_duplicates: near-identical clips in different folds, ordered by their positions.
    """

    name: str
    metric: str
    mode: str
    classes: tuple[str, ...]
    clips: tuple[ClipRow, ...]
    trials: tuple[Trial, ...]
    merged: int = 0
    protocol: Protocol = "held_out"
    outer: tuple[Trial, ...] = ()
    pruned: frozenset[str] = frozenset()
    to_come: int = 0
    suggestions: tuple[Suggestion, ...] = ()
    leakage_allowed: bool = False
    specification: str = ""
    data: str = ""
    near_duplicates: tuple[NearDuplicateRow, ...] = ()

    @cached_property
    def configurations(self) -> tuple[Configuration, ...]:
        """The distinct configurations in plan order."""
        return tuple({t.configuration.id: t.configuration for t in self.trials}.values())

    @property
    def every(self) -> tuple[Trial, ...]:
        """All trials, the outer ones last."""
        return self.trials + self.outer

    @property
    def test_metric(self) -> str:
        """The metric on the test split: for reading, never to rank by."""
        return f"test_{self.metric.partition('_')[2]}"

    def of(self, trials: Iterable[Trial]) -> Plan:
        """The plan with some of its trials only."""
        return replace(self, trials=tuple(trials), outer=())

    @cached_property
    def trials_of(self) -> dict[str, tuple[Trial, ...]]:
        """The trials of each configuration by its identity, in plan order."""
        found: dict[str, list[Trial]] = {}
        for trial in self.trials:
            found.setdefault(trial.configuration.id, []).append(trial)
        return {configuration: tuple(trials) for configuration, trials in found.items()}

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Dotted paths that take more than one value over the plan, absence being a value."""
        return varying_paths(self.configurations)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; `from_json` reads it back equal."""
        index = {c.id: i for i, c in enumerate(self.configurations)}

        def rows(trials: tuple[Trial, ...]) -> list[list[int | None]]:
            return [[index[t.configuration.id], t.test_fold, t.fold, t.seed] for t in trials]

        return {
            "name": self.name,
            "metric": self.metric,
            "mode": self.mode,
            "merged": self.merged,
            "protocol": self.protocol,
            "leakage_allowed": self.leakage_allowed,
            "specification": self.specification,
            "data": self.data,
            "classes": list(self.classes),
            "clips": [[c.path, c.label, c.problem] for c in self.clips],
            "near_duplicates": [list(astuple(row)) for row in self.near_duplicates],
            "configurations": [c.to_json() for c in self.configurations],
            "trials": rows(self.trials),
            "outer": rows(self.outer),
            "pruned": [trial.id for trial in self.trials if trial.id in self.pruned],
            "to_come": self.to_come,
            "suggestions": [suggestion.to_json() for suggestion in self.suggestions],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError, KeyError, TypeError, ValueError: not a plan of this version.
        """
        configurations = [Configuration.from_json(c) for c in data["configurations"]]
        trials, outer = (
            tuple(Trial(configurations[i], test, fold, seed) for i, test, fold, seed in rows)
            for rows in (data["trials"], data.get("outer", []))
        )
        return cls(
            name=data["name"],
            metric=data["metric"],
            mode=data["mode"],
            classes=tuple(data["classes"]),
            clips=tuple(ClipRow(*row) for row in data["clips"]),
            trials=trials,
            outer=outer,
            pruned=frozenset(data.get("pruned", [])),
            suggestions=tuple(map(Suggestion.from_json, data.get("suggestions", []))),
            to_come=data.get("to_come", 0),
            merged=data["merged"],
            protocol=data.get("protocol", "held_out"),
            leakage_allowed=data["leakage_allowed"],
            specification=data["specification"],
            data=data["data"],
            near_duplicates=tuple(NearDuplicateRow(*r) for r in data.get("near_duplicates", ())),
        )


def varying_paths(configurations: tuple[Configuration, ...]) -> tuple[str, ...]:
    """Dotted paths whose value differs between configurations, absence being a value.

    That an estimator has no training parameters makes none of them vary. Ordered as in the
    schema: features, model, train, and within each as its fields are.
    """
    seen: dict[str, set[object]] = {}
    for configuration in configurations:
        for path, value in configuration.parameters.items():
            seen.setdefault(path, set()).add(comparable(value))
    counts = dict.fromkeys(seen, 0)
    for configuration in configurations:
        for path in configuration.parameters:
            counts[path] += 1
    trained = sum(configuration.train is not None for configuration in configurations)
    varying = [
        path
        for path, values in seen.items()
        if len(values) > 1
        or counts[path] < (trained if path.startswith("train.") else len(configurations))
    ]
    return tuple(sorted(varying, key=position))


def canonical(value: object) -> str:
    """JSON text in which equal values are equal text: keys sorted, 1.0 written as 1."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def comparable(value: Value) -> object:
    """A hashable that is equal for values of equal canonical text, in a tenth of its time."""
    if isinstance(value, str | int | float):
        # Python takes True for 1.
        return isinstance(value, bool), value
    return canonical(value)


def file_name(text: str) -> str:
    """The text with everything but letters, digits and `._-` replaced by `-`."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def _plain(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _leaves(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Value]]:
    leaves: list[tuple[str, Value]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            leaves.extend(_leaves(value, f"{prefix}{key}."))
        elif value is not None:
            leaves.append((f"{prefix}{key}", value))
    return leaves


_FEATURES: TypeAdapter[FeatureSpec] = TypeAdapter(FeatureSpec)
_MODEL: TypeAdapter[ModelSpec] = TypeAdapter(ModelSpec)
