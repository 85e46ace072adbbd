"""From a specification to a module: the one table of builders, and the checks around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.cnn1d import Cnn1d, cnn1d
from models.cnn2d import Cnn2d, cnn2d
from models.cnn_transformer import CnnTransformer, cnn_transformer
from models.factory import check_factory, load_factory
from models.googlenet import GoogLeNet, googlenet
from models.initialization import initialize
from models.library_error import error_line
from models.picture import picture
from models.resnet import ResNet, resnet34
from models.spec import (
    BuiltIn,
    Cnn1dSpec,
    Cnn2dSpec,
    CnnTransformerSpec,
    FactorySpec,
    GoogLeNetSpec,
    InputError,
    InputSpec,
    NetworkSpec,
    ResNet34Spec,
    TorchvisionSpec,
    is_weights_name,
)
from models.torchvision_classifier import (
    TorchvisionClassifier,
    TorchvisionError,
    load_pretrained,
    named_weights,
    torchvision_classifier,
)
from models.weights import WeightsError, file_hash, load_weights, read_weights

__all__ = [
    "BUILDERS",
    "ModelError",
    "build_model",
    "build_trained",
    "count_parameters",
    "try_model",
    "weights_path",
]


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


def _cnn2d(spec: Cnn2dSpec, inputs: InputSpec, classes: int) -> Cnn2d:
    return cnn2d(
        inputs, classes, channels=spec.channels, branches=spec.branches, dropout=spec.dropout
    )


def _googlenet(spec: GoogLeNetSpec, inputs: InputSpec, classes: int) -> GoogLeNet:
    return googlenet(*picture(inputs), classes)


def _resnet34(spec: ResNet34Spec, inputs: InputSpec, classes: int) -> ResNet:
    return resnet34(*picture(inputs), classes)


BUILDERS: dict[str, Callable[[Any, InputSpec, int], nn.Module]] = {
    "cnn1d": _cnn1d,
    "cnn_transformer": _cnn_transformer,
    "cnn2d": _cnn2d,
    "googlenet": _googlenet,
    "resnet34": _resnet34,
}
"""Every network that comes with foldgrid; other names are torchvision's or a user's factory."""


_SIDES = (32, 64, 128, 224, 299)
"""Pictures that a message offers where a model refuses the one that it gets, pixels."""


def build_model(
    spec: NetworkSpec, inputs: InputSpec, classes: int, *, import_path: Sequence[Path] = ()
) -> nn.Module:
    """Build and initialize a model, drawing from PyTorch's global generator.

    Args:
        spec: which model.
        inputs: layout and shape of one clip's features.
        classes: `k`, the logits' width.
        import_path: folders in which a user's factory is looked for.

    Returns:
        A module from `float32 [b, c, t]` (images: `[b, 3, h, w]`) to logits `[b, k]`, in training
        mode maybe to AuxiliaryLogits; on the CPU unless a user's factory puts it elsewhere.

    Raises:
        InputError: the features do not fit the model.
        FactoryError: a user's factory cannot be imported or does not take its parameters.
        ModelError: a user's factory gives no module, or one whose logits have another shape.
        TorchvisionError: torchvision has no such classifier or refuses the parameters.
        WeightsError: the weights cannot be read or do not fit.
    """
    spec.check_input(inputs)
    if isinstance(spec, FactorySpec):
        model = _from_factory(spec, inputs, classes, import_path)
        initialize(model, spec.init)
        return model
    model = _known_model(spec, inputs, classes)
    if spec.weights is None:
        initialize(model, spec.init)
    else:
        try:
            _load(model, spec, inputs, classes)
        except WeightsError as error:
            raise WeightsError(f"{Path(spec.weights).name}: {error}") from error
    return model


def build_trained(
    spec: NetworkSpec,
    inputs: InputSpec,
    classes: int,
    weights: Path,
    *,
    import_path: Sequence[Path] = (),
) -> nn.Module:
    """Build a model and give it the weights that it was trained to; in evaluation mode.

    What it once started from is not needed, and no generator moves.

    Args:
        spec: which model.
        inputs: layout and shape of one clip's features.
        classes: `k`, the logits' width.
        weights: as `weights_bytes` wrote them.
        import_path: folders in which a user's factory is looked for.

    Raises:
        InputError, FactoryError, ModelError, TorchvisionError: see `build_model`.
        WeightsError: the weights cannot be read or are not those of such a model.
    """
    with torch.random.fork_rng(devices=[]):
        if isinstance(spec, FactorySpec):
            model = _from_factory(spec, inputs, classes, import_path)
        else:
            model = _known_model(spec, inputs, classes)
    load_weights(model, read_weights(weights), heads=())
    return model.eval()


def try_model(spec: BuiltIn | TorchvisionSpec, inputs: InputSpec) -> None:
    """Build a model without memory for its weights and run two clips without content through it.

    Neither a model nor a draw comes of it; it shows whether the model, its parameters, the
    features and the weights fit together.

    Raises:
        InputError: the features do not fit the model.
        TorchvisionError: torchvision has no such classifier or refuses the parameters.
        WeightsError: the weights cannot be read or do not fit.
    """
    spec.check_input(inputs)
    model = _ghost(spec, inputs, 2)
    refusal = _refusal(model, inputs.shape)
    if refusal is None:
        if spec.weights is not None:
            _load(model, spec, inputs, 2)
        return
    sides = (side for side in _SIDES if not _refusal(model, (*inputs.shape[:-2], side, side)))
    side = next(sides, None)
    example = "" if side is None else f", {side} x {side} pixels for instance"
    raise InputError(f"features that it takes{example} ({refusal})")


def weights_path(spec: BuiltIn | TorchvisionSpec) -> Path:
    """The file of the weights that a model starts from; torchvision's own are downloaded once.

    Raises:
        WeightsError: torchvision has no weights of that name, or they cannot be downloaded.
    """
    assert spec.weights is not None
    if isinstance(spec, TorchvisionSpec) and is_weights_name(spec.weights):
        return named_weights(spec.model, spec.weights)
    return Path(spec.weights)


def check_weights(spec: NetworkSpec, digest: str) -> None:
    """Raise WeightsError if the file of the weights is not the one that was planned with.

    Args:
        spec: of the model.
        digest: hash of the file as it was.
    """
    if isinstance(spec, FactorySpec) or spec.weights is None:
        return
    if file_hash(weights_path(spec)) != digest:
        raise WeightsError(f"{Path(spec.weights).name}: changed while it was in use")


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Numbers of all parameters and of the trainable ones."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def _refusal(model: nn.Module, shape: tuple[int, ...]) -> str | None:
    """Why a model of shapes alone cannot take features; None if it can, in both modes."""
    clips = torch.zeros(2, *shape, device="meta")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            for training in (True, False):
                model.train(training)(clips)
        # A layer raises what it likes where a picture is too small or of the wrong size.
        except Exception as error:
            return error_line(error)
    return None


def _known_model(spec: BuiltIn | TorchvisionSpec, inputs: InputSpec, classes: int) -> nn.Module:
    if isinstance(spec, TorchvisionSpec):
        return torchvision_classifier(spec, inputs, classes)
    return BUILDERS[spec.name](spec, inputs, classes)


def _ghost(spec: BuiltIn | TorchvisionSpec, inputs: InputSpec, classes: int) -> nn.Module:
    """A model of shapes alone, on the meta device."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return _known_model(spec, inputs, classes)
        except TorchvisionError:
            # Some compute their widths with tensors, which must have values for it.
            return _known_model(spec, inputs, classes).to("meta")


def _load(
    model: nn.Module, spec: BuiltIn | TorchvisionSpec, inputs: InputSpec, classes: int
) -> None:
    """Copy the weights that a specification names into its model."""
    other = _ghost(spec, inputs, classes + 1).state_dict()
    own = model.state_dict()
    heads = {name for name in own if own[name].shape != other[name].shape}
    state = read_weights(weights_path(spec))
    if isinstance(model, TorchvisionClassifier):
        load_pretrained(model, state, heads)
    else:
        load_weights(model, state, heads)


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
