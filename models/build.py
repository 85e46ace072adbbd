"""From a specification to a module: the one table of builders, and the checks around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.cnn1d import Cnn1d, cnn1d
from models.cnn_transformer import CnnTransformer, cnn_transformer
from models.factory import check_factory, load_factory
from models.initialization import initialize
from models.spec import Cnn1dSpec, CnnTransformerSpec, FactorySpec, InputSpec, ModelSpec

__all__ = ["BUILDERS", "ModelError", "build_model", "count_parameters"]


class ModelError(ValueError):
    """A user's factory gave something that is no classifier of the features."""


def _cnn1d(spec: Cnn1dSpec, inputs: InputSpec, classes: int) -> Cnn1d:
    return cnn1d(inputs.shape[0], classes, inputs.layout)


def _cnn_transformer(spec: CnnTransformerSpec, inputs: InputSpec, classes: int) -> CnnTransformer:
    return cnn_transformer(
        inputs.shape[0],
        classes,
        inputs.layout,
        heads=spec.heads,
        layers=spec.layers,
        dropout=spec.dropout,
    )


BUILDERS: dict[str, Callable[[Any, InputSpec, int], nn.Module]] = {
    "cnn1d": _cnn1d,
    "cnn_transformer": _cnn_transformer,
}
"""Every model that comes with foldgrid; any other name is a user's factory."""


def build_model(
    spec: ModelSpec, inputs: InputSpec, classes: int, *, import_path: Sequence[Path] = ()
) -> nn.Module:
    """Build and initialize a model, drawing from PyTorch's global generator.

    Args:
        spec: which model.
        inputs: layout and shape `(c, t)` of one clip's features.
        classes: `k`, the logits' width.
        import_path: folders in which a user's factory is looked for.

    Returns:
        A module from `float32 [b, c, t]` to logits `[b, k]`, on the CPU unless a user's factory
        puts it elsewhere.

    Raises:
        InputError: the features do not fit the model.
        FactoryError: a user's factory cannot be imported or does not take its parameters.
        ModelError: a user's factory gives no module, or one whose logits have another shape.
    """
    spec.check_input(inputs)
    if isinstance(spec, FactorySpec):
        model = _from_factory(spec, inputs, classes, import_path)
    else:
        model = BUILDERS[spec.name](spec, inputs, classes)
    initialize(model, spec.init)
    return model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Numbers of all parameters and of the trainable ones."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def _from_factory(
    spec: FactorySpec, inputs: InputSpec, classes: int, import_path: Sequence[Path]
) -> nn.Module:
    factory = load_factory(spec.name, import_path)
    check_factory(factory, spec.params)
    model = factory(inputs.shape, classes, **spec.params)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec.name} gave {type(model).__name__}, expected torch.nn.Module")
    # Before the initialization, because lazy layers get their shapes here.
    _check_logits(model, spec.name, inputs.shape, classes)
    return model


def _check_logits(model: nn.Module, name: str, shape: tuple[int, ...], classes: int) -> None:
    """Run two silent clips through the model; neither its state nor the generator moves."""
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with torch.random.fork_rng(devices=[]), _evaluating(model), torch.no_grad():
        logits = model(torch.zeros(2, *shape, device=device))
    if not isinstance(logits, torch.Tensor):
        raise ModelError(f"{name} gave {type(logits).__name__}, expected logits [2, {classes}]")
    if logits.shape != (2, classes):
        raise ModelError(f"{name} gave logits {list(logits.shape)}, expected [2, {classes}]")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
