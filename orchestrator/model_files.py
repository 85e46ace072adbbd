"""Models beside the specification: a user's code, other libraries' names, files of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.spec import (
    BuiltIn,
    EstimatorSpec,
    FactorySpec,
    InputError,
    InputSpec,
    ModelSpec,
    TorchvisionSpec,
)
from orchestrator.errors import Fault
from orchestrator.trials import Configuration, canonical
from orchestrator.yaml_source import KeyPath, YamlSource


class _Misfit(Exception):  # noqa: N818
    """A model cannot be had; becomes a fault at a key of the model's section."""

    def __init__(self, key: KeyPath, found: str, allowed: str, near: str = "") -> None:
        super().__init__(found)
        self.key, self.found, self.allowed, self.near = key, found, allowed, near


def with_files(
    configurations: Sequence[Configuration], folders: Sequence[Path], source: YamlSource
) -> tuple[list[Configuration], list[Fault]]:
    """Check what the models need beside the specification, and add its hash.

    PyTorch or scikit-learn is imported only where a model needs such a check: it takes seconds.

    Args:
        configurations: as the specification gives them.
        folders: in which a user's model is looked for.
        source: of the specification, for the faults.

    Returns:
        The configurations that can be had, and a fault for each model that cannot.
    """
    found: list[Configuration] = []
    faults: list[Fault] = []
    seen: dict[str, str | Fault] = {}
    for configuration in configurations:
        model = configuration.model
        key = canonical([configuration.inputs.shape, model.model_dump(mode="json")])
        if key not in seen:
            seen[key] = _checked(configuration, folders, source)
        digest = seen[key]
        if isinstance(digest, Fault):
            faults.append(digest)
        else:
            found.append(replace(configuration, source=digest))
    return found, faults


def _checked(
    configuration: Configuration, folders: Sequence[Path], source: YamlSource
) -> str | Fault:
    """The hash of what a model is made from, empty where that is no file; or its fault."""
    model = configuration.model
    try:
        if isinstance(model, FactorySpec):
            return _factory(model, folders)
        if isinstance(model, EstimatorSpec):
            return _estimator(model)
        if model.weights is None and not isinstance(model, TorchvisionSpec):
            return ""
        return _known(model, configuration.inputs)
    except _Misfit as misfit:
        path = source.find(("model", *misfit.key), _written(model, misfit.key))
        return source.fault(path, misfit.found, misfit.allowed, misfit.near)


def _written(model: ModelSpec, key: KeyPath) -> object:
    """The value of a key, or how it ends in the specification, a path being made absolute since."""
    first, *rest = key
    if first == "params" and not isinstance(model, BuiltIn):
        return model.params.get(str(rest[0])) if rest else None
    value = getattr(model, str(first), None)
    return Path(value).name if first == "weights" and value else value if first == "name" else None


def _factory(model: FactorySpec, folders: Sequence[Path]) -> str:
    from models.factory import (
        FactoryError,
        check_factory,
        forget_changed,
        load_factory,
        source_hash,
    )

    try:
        forget_changed(model.name)
        check_factory(load_factory(model.name, folders), model.params)
        return source_hash(model.name, folders)
    except FactoryError as error:
        key = ("params", error.parameter) if error.parameter else ("name",)
        allowed = "a factory(input_shape, classes, **params) beside this file"
        raise _Misfit(key, f"{model.name} ({error})", allowed) from None


def _estimator(model: EstimatorSpec) -> str:
    from models.estimator import EstimatorError, check_estimator

    try:
        check_estimator(model)
        return ""
    except EstimatorError as error:
        raise _Misfit(error.key, error.found, error.allowed, error.near) from None


def _known(model: BuiltIn | TorchvisionSpec, inputs: InputSpec) -> str:
    from models.build import try_model, weights_path
    from models.torchvision_classifier import TorchvisionError
    from models.weights import WeightsError, file_hash

    try:
        try_model(model, inputs)
        return "" if model.weights is None else file_hash(weights_path(model))
    except InputError as error:
        found = f"{model.name} with features of {list(inputs.shape)}"
        raise _Misfit(("name",), found, str(error)) from None
    except TorchvisionError as error:
        raise _Misfit(error.key, error.found, error.allowed, error.near) from None
    except WeightsError as error:
        allowed = f"weights for {model.name}, with or without its classifier"
        raise _Misfit(("weights",), f"{model.weights} ({error})", allowed) from None
