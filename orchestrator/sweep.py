"""Sweep: a YAML specification, checked, its search space expanded into configurations."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from features.augment_spec import AugmentError, check_augment
from features.formulas import is_formula
from features.spec import FeatureSpec, MelSpec
from models.spec import EstimatorSpec, InputError, is_weights_name
from orchestrator.document import SECTIONS, document
from orchestrator.errors import Fault, SpecificationError, listing, shown
from orchestrator.hyperparameters import PlateauSchedule, TrainSpec
from orchestrator.mapping_source import NAME, from_mapping
from orchestrator.model_files import with_files
from orchestrator.sections import MOST_CONFIGURATIONS, expand_section, unrelated
from orchestrator.space import SPACES, Chooser, Draw
from orchestrator.specification import FORMAT_VERSION, Settings
from orchestrator.trials import Configuration, Suggestion, canonical
from orchestrator.validation import SPACE_SECTIONS, unknown_key, validate
from orchestrator.yaml_source import KeyPath, YamlSource, dotted, read


@dataclass(frozen=True)
class Sweep:
    """A checked specification.

    Attributes:
        settings: the sections without search spaces.
        configurations: distinct ones, in plan order.
        merged: how many equal ones were merged into others.
        source: where each value stands, for faults that only the data show.
        path: absolute, of the specification; of one that was no file, the one that its folder
            would hold.
        import_path: folders that a user's `package.module:factory` is imported from.
        document: the specification with every default filled in, spaces as written.
        warnings: legal but surely not meant.
        suggestions: with `search.method: optuna`, those that `configurations` are from.
        all_features: every one that a configuration may have.
    """

    settings: Settings
    configurations: tuple[Configuration, ...]
    merged: int
    source: YamlSource
    path: Path
    import_path: tuple[Path, ...]
    document: dict[str, Any]
    warnings: tuple[str, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    all_features: tuple[FeatureSpec, ...] = ()

    def suggesting(self, suggestions: Sequence[Suggestion]) -> Sweep:
        """The sweep with other suggestions, each configuration once."""
        found = [one.configuration for one in suggestions if one.configuration is not None]
        distinct = tuple({configuration.id: configuration for configuration in found}.values())
        merged = len(found) - len(distinct)
        return replace(self, suggestions=tuple(suggestions), configurations=distinct, merged=merged)

    @property
    def root(self) -> Path | None:
        """The data root, absolute; None where the data need none."""
        return _path(self.settings.data.root)

    @property
    def manifest(self) -> Path | None:
        """The manifest, absolute; None where there is none."""
        return _path(self.settings.data.manifest)

    def fault(self, path: KeyPath, found: str, allowed: str) -> SpecificationError:
        """An error at a path of the specification, for the caller to raise."""
        return SpecificationError(str(self.source.fault(path, found, allowed)))


def load_sweep(
    path: Path, overrides: Sequence[str] = (), import_path: Sequence[Path] = ()
) -> Sweep:
    """Read and check a specification; nothing is started and no audio is read.

    Args:
        path: of the YAML file.
        overrides: `path.to.key=value`, the last wins.
        import_path: folders beside the specification's to import a user's model from.

    Raises:
        SpecificationError: with every fault.
    """
    return _sweep(read(path), overrides, path, path.resolve().parent, import_path)


def sweep_of(data: Mapping[str, Any], overrides: Sequence[str], folder: Path) -> Sweep:
    """Check a specification that is no file; see `load_sweep`.

    Args:
        data: what the file would hold.
        overrides: `path.to.key=value`, the last wins.
        folder: that the file would be in.
    """
    return _sweep(from_mapping(data), overrides, folder / NAME, folder.resolve())


def _sweep(
    source: YamlSource,
    overrides: Sequence[str],
    path: Path,
    folder: Path,
    import_path: Sequence[Path] = (),
) -> Sweep:
    for option in overrides:
        source.override(option)
    return _Reader(source, folder, tuple(import_path)).sweep(path)


def configuration_at(sweep: Sweep, chooser: Chooser) -> Configuration:
    """The configuration in which every space has one value.

    Raises:
        SpecificationError: the values do not go together.
    """
    return _Reader(sweep.source, sweep.path.parent, sweep.import_path).configuration(chooser)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


@dataclass
class _Reader:
    """Collects the faults of all sections before any is reported."""

    source: YamlSource
    folder: Path
    import_path: tuple[Path, ...]
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def sweep(self, path: Path) -> Sweep:
        self._check_version()
        self._check_sections()
        settings = self._settings(path)
        random = settings is None or settings.search.method != "grid"
        draws = self._draws(settings)
        sections = {name: self._section(name, random, draws) for name in SPACE_SECTIONS}
        self._raise_faults()
        assert settings is not None
        configurations, merged = self._configurations(sections)
        self._refuse_training(configurations, sections["train"])
        features = tuple(dict.fromkeys(c.features for c in configurations))
        if settings.search.method == "optuna":
            # None before it is asked; and features are extracted before that.
            configurations, merged = [], 0
            features = self._all_features()
        self._check_inputs(configurations)
        self._refuse_search(settings)
        if settings.folds.protocol == "nested":
            self._refuse_plateau(configurations)
        self._warn_of_empty_bands(configurations)
        self._refuse_formulas(configurations)
        self._raise_faults()
        folders = (self.folder, *self.import_path)
        configurations, faults = with_files(configurations, folders, self.source)
        self.faults += faults
        self._raise_faults()
        distinct = self._merged(configurations)
        self._raise_faults()
        return Sweep(
            settings=settings,
            configurations=tuple(distinct),
            merged=merged + len(configurations) - len(distinct),
            source=self.source,
            path=path.absolute(),
            import_path=folders,
            document=document(self.source.data, settings),
            warnings=tuple(self.warnings),
            all_features=features,
        )

    def configuration(self, chooser: Chooser) -> Configuration:
        sections = {name: self._section(name, True, [chooser]) for name in SPACE_SECTIONS}
        self._raise_faults()
        configurations, _ = self._configurations(sections)
        self._check_inputs(configurations)
        self._refuse_formulas(configurations)
        self._raise_faults()
        configurations, self.faults = with_files(configurations, self.import_path, self.source)
        self._raise_faults()
        return configurations[0]

    def _all_features(self) -> tuple[FeatureSpec, ...]:
        """Of every branch; what is drawn from a range would be too many to extract in advance."""
        low, high = (self._section("features", True, [Draw(probe=end)]) for end in ("low", "high"))
        self._raise_faults()
        if low != high:
            found, allowed = "a range", "grid or choice with search.method: optuna"
            self.faults.append(self.source.fault(("features",), found, allowed))
            self._raise_faults()
        return cast("tuple[FeatureSpec, ...]", tuple(dict.fromkeys(low[0])))

    def _raise_faults(self) -> None:
        if self.faults:
            raise SpecificationError(*dict.fromkeys(str(fault) for fault in self.faults))

    def _check_version(self) -> None:
        # Before the fields: a later format should be told apart from an unknown key.
        version = self.source.data.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION or isinstance(version, bool):
            fault = self.source.fault(("format_version",), str(version), str(FORMAT_VERSION))
            raise SpecificationError(str(fault))

    def _check_sections(self) -> None:
        data = self.source.data
        for key in data:
            if key not in SECTIONS:
                self.faults.append(unknown_key((key,), SECTIONS, self.source))
        for key in SPACE_SECTIONS:
            if not isinstance(data.get(key, {}), dict):
                found = "nothing" if data[key] is None else shown(data[key])
                self.faults.append(self.source.fault((key,), found, "a mapping"))
                data[key] = {}
        self._expand_weights(data.get("model"), ("model",))

    def _settings(self, path: Path) -> Settings | None:
        data = {
            key: value
            for key, value in self.source.data.items()
            if key in SECTIONS and key not in (*SPACE_SECTIONS, "format_version")
        }
        if "name" not in data:
            data["name"] = _default_name(path)
        data.setdefault("data", {})
        spaces = [p for key, value in data.items() for p in _space_paths(value, (key,))]
        for place in spaces:
            allowed = f"a plain value; spaces stand under {listing(SPACE_SECTIONS)}"
            self.faults.append(self.source.fault(place, "a search space", allowed))
        data = self._with_paths(data)
        settings, faults = validate(Settings, data, (), self.source)
        self.faults += unrelated(faults, [dotted(place) for place in spaces])
        if settings and _mode_is_odd(settings):
            self.warnings.append(
                f"search.mode: {settings.search.mode} of {settings.search.metric} prefers the worst"
            )
        return settings

    def _with_paths(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data with `~` and `${VAR}` expanded and paths made absolute."""
        execution = data.get("execution")
        if isinstance(execution, dict) and isinstance(execution.get("storage"), str):
            storage = self._absolute(execution["storage"], ("execution", "storage"))
            data = data | {"execution": execution | {"storage": storage}}
        section = data["data"]
        if not isinstance(section, dict):
            return data
        section = dict(section)
        for key in ("root", "manifest"):
            if isinstance(section.get(key), str) and section[key]:
                section[key] = self._absolute(section[key], ("data", key))
        if section.get("dataset") == "manifest" and section.get("manifest"):
            section.setdefault("root", str(Path(str(section["manifest"])).parent))
        return data | {"data": section}

    def _expand_weights(self, model: Any, path: KeyPath) -> None:
        """Make the files of weights absolute in every branch of a model's space, in place."""
        if not isinstance(model, dict):
            return
        for word in ("grid", "choice"):
            branches = model.get(word)
            for i, branch in enumerate(branches if isinstance(branches, list) else []):
                self._expand_weights(branch, (*path, word, i))
        if "weights" in model:
            model["weights"] = self._absolute_weights(model["weights"], (*path, "weights"))

    def _absolute_weights(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, str) and value and not is_weights_name(value):
            return self._absolute(value, path)
        if isinstance(value, list):
            return [self._absolute_weights(v, (*path, i)) for i, v in enumerate(value)]
        if isinstance(value, dict):
            return {key: self._absolute_weights(v, (*path, key)) for key, v in value.items()}
        return value

    def _absolute(self, text: str, path: KeyPath) -> str:
        for name in re.findall(r"\$\{([^}]*)\}", text):
            if not os.environ.get(name):
                found = f"${{{name}}}, which is not set in the environment"
                self.faults.append(self.source.fault(path, found, "variables that are set"))
                return str(self.folder)
            text = text.replace(f"${{{name}}}", os.environ[name])
        try:
            if "\0" in text:
                raise ValueError
            absolute = os.path.abspath(self.folder / Path(text).expanduser())  # noqa: PTH100
            absolute.encode()
            return absolute
        except (ValueError, RuntimeError):
            # NUL, a folder whose name is not UTF-8, or `~` of nobody.
            self.faults.append(self.source.fault(path, shown(text), "a path of UTF-8 text"))
            return str(self.folder)

    def _draws(self, settings: Settings | None) -> list[Chooser]:
        if settings is None or settings.search.method == "grid":
            return [Draw()]
        if settings.search.method == "optuna":
            # Every branch, and the bounds: what is wrong should be found before Optuna comes to it.
            return []
        search = settings.search
        return [Draw(search.seed, index) for index in range(search.samples or 1)]

    def _section(self, name: str, random: bool, draws: Sequence[Chooser]) -> list[list[BaseModel]]:
        if any(fault.path == name for fault in self.faults):
            return []
        values, faults = expand_section(name, self.source, random, draws)
        self.faults += faults
        return values

    def _configurations(
        self, sections: dict[str, list[list[BaseModel]]]
    ) -> tuple[list[Configuration], int]:
        draws = list(zip(*sections.values(), strict=True))
        total = sum(math.prod(len(values) for values in lists) for lists in draws)
        if total > MOST_CONFIGURATIONS:
            found, allowed = f"{total} configurations", f"at most {MOST_CONFIGURATIONS}"
            self.faults.append(self.source.fault(("search",), found, allowed))
            self._raise_faults()
        distinct: dict[str, Configuration] = {}
        for point in _grid_first([list(product(*lists)) for lists in draws]):
            features, model, train = point
            # Points that differ in their training alone are one configuration of an estimator.
            fitted = isinstance(model, EstimatorSpec)
            configuration = Configuration(features, model, None if fitted else train)
            distinct.setdefault(canonical(configuration.to_json()), configuration)
        return list(distinct.values()), total - len(distinct)

    def _refuse_training(
        self, configurations: Sequence[Configuration], drawn: Iterable[list[BaseModel]]
    ) -> None:
        """Settings of a training that no model here goes through would be believed to act."""
        if any(configuration.train is not None for configuration in configurations):
            return
        asked = dict.fromkeys(
            name
            for values in drawn
            for train in values
            for name in TrainSpec.model_fields
            if getattr(train, name) != getattr(TrainSpec(), name)
        )
        for name in asked:
            path = self.source.find(("train", name))
            found = f"{name} without a model that is trained"
            allowed = "it with networks; an estimator of scikit-learn is fitted in one go"
            self.faults.append(self.source.fault(path, found, allowed))

    def _merged(self, configurations: list[Configuration]) -> list[Configuration]:
        """Distinct ones, now that the content of files is known too."""
        distinct: dict[str, Configuration] = {}
        for configuration in configurations:
            distinct.setdefault(configuration.identity, configuration)
        merged = list(distinct.values())
        if len({c.id for c in merged}) < len(merged):
            # Two of 2^32 identities met; another spelling of any value parts them.
            found = "two configurations with one identity"
            self.faults.append(self.source.fault((), found, "a slightly different search space"))
        return merged

    def _check_inputs(self, configurations: Iterable[Configuration]) -> None:
        pairs = {(c.features, c.model.name): c for c in configurations}
        augmented = dict.fromkeys((c.features, c.train.augment) for c in configurations if c.train)
        for features, augment in augmented:
            try:
                if augment is not None:
                    check_augment(augment, features)
            except AugmentError as error:
                path = self.source.find(("train", "augment", error.field))
                self.faults.append(self.source.fault(path, error.found, error.allowed))
        for configuration in pairs.values():
            inputs = configuration.inputs
            try:
                configuration.model.check_input(inputs)
            except InputError as error:
                found = f"{configuration.model.name} with features of {list(inputs.shape)}"
                path = self.source.find(("model", "name"), configuration.model.name)
                self.faults.append(self.source.fault(path, found, str(error)))

    def _refuse_search(self, settings: Settings) -> None:
        """Optuna would suggest for one test fold what validation on it has shown."""
        if settings.search.pruner is not None and (
            settings.search.method == "optuna" or settings.folds.protocol == "nested"
        ):
            found, allowed = settings.search.pruner.name, "null with method optuna or nested folds"
            self.faults.append(self.source.fault(("search", "pruner"), found, allowed))
        of_epochs = ("val_accuracy", "val_loss")
        pruner, metric = settings.search.pruner, settings.search.metric
        if pruner is not None and pruner.epochs is not None and metric not in of_epochs:
            allowed = f"{' or '.join(of_epochs)}, which each epoch has, with search.pruner.epochs"
            self.faults.append(self.source.fault(("search", "metric"), metric, allowed))
        if settings.search.method == "optuna" and settings.folds.protocol == "nested":
            allowed = "grid or random with protocol nested"
            self.faults.append(self.source.fault(("search", "method"), "optuna", allowed))

    def _refuse_plateau(self, configurations: Iterable[Configuration]) -> None:
        """The outer trainings have no validation split that a learning rate could follow."""
        trained = [c.train for c in configurations if c.train is not None]
        if any(isinstance(train.schedule, PlateauSchedule) for train in trained):
            path = self.source.find(("train", "schedule", "name"), "plateau")
            allowed = "another schedule with protocol nested, whose last trainings validate nothing"
            self.faults.append(self.source.fault(path, "plateau", allowed))

    def _refuse_formulas(self, configurations: Iterable[Configuration]) -> None:
        """Text among the parameters stands in the tables as it is."""
        texts = {
            (path, value): None
            for configuration in configurations
            for path, value in configuration.parameters.items()
            if isinstance(value, str) and is_formula(value)
        }
        for path, value in texts:
            place = self.source.find(tuple(path.split(".")), value)
            found = f"{shown(value)}, a formula to spreadsheets"
            self.faults.append(self.source.fault(place, found, "text that begins otherwise"))

    def _warn_of_empty_bands(self, configurations: Iterable[Configuration]) -> None:
        # Not at module level: numpy is slow to import for what needs no more of it.
        from features.mel import empty_bands

        for features in dict.fromkeys(c.features for c in configurations):
            if not isinstance(features, MelSpec) or not (empty := empty_bands(features)):
                continue
            line = (
                f"features.n_mels: {empty} of {features.n_mels} bands are empty with n_fft"
                f" {features.n_fft} at {features.sample_rate} Hz (fewer n_mels, or a larger n_fft)"
            )
            if line not in self.warnings:
                self.warnings.append(line)


def _grid_first(draws: list[list[Any]]) -> Iterator[Any]:
    """Points with the grid varying slowest and the draws fastest, where every draw has its grid."""
    if len({len(points) for points in draws}) == 1:
        for position in zip(*draws, strict=True):
            yield from position
    else:
        for points in draws:
            yield from points


def _default_name(path: Path) -> str:
    """The file's stem, anything that a name may not hold replaced."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip(".") or "sweep"


def _mode_is_odd(settings: Settings) -> bool:
    return (settings.search.mode == "min") != (settings.search.metric == "val_loss")


def _space_paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value)) in SPACES:
            yield path
            return
        for key, child in value.items():
            yield from _space_paths(child, (*path, key))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _space_paths(child, (*path, i))
