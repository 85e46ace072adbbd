"""`torchvision:<name>`: torchvision's classifiers for our classes and features.

torchvision is imported here only, inside functions, since it takes a second.
"""

from __future__ import annotations

import difflib
import inspect
import re
import socket
import urllib.error
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.library_error import LibraryError, error_line
from models.outputs import AuxiliaryLogits
from models.picture import Normalized, channels_together, picture
from models.spec import InputSpec, TorchvisionSpec
from models.weights import WeightsError, load_weights

__all__ = [
    "TorchvisionClassifier",
    "TorchvisionError",
    "classifier_names",
    "load_pretrained",
    "named_weights",
    "torchvision_classifier",
]

_DEFAULTED = ("dropout", "image_size", "input_size", "stochastic_depth_prob")
"""Arguments for which a builder has a default where its network's class has none."""

_OURS = ("weights", "progress", "num_classes")
"""Arguments of every builder that foldgrid gives itself."""

_WAIT_SECONDS = 30.0
"""For an answer of the server that has the weights."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, in 0..1: what pre-trained weights expect to be taken off."""

_INCEPTIONS = ("googlenet", "inception_v3")
"""Their weights come from pictures in -1..1; both have auxiliary classifiers."""

_AUXILIARY_WEIGHT = {"googlenet": 0.3, "inception_v3": 0.4}

_OLD_DENSE_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")


class TorchvisionError(LibraryError):
    """torchvision has no such classifier, or refuses its parameters."""


class TorchvisionClassifier(nn.Module):
    """A network of torchvision behind what makes its pictures.

    Attributes:
        picture: turns a batch of features into pictures.
        network: torchvision's.
        auxiliary_weight: of each auxiliary loss.
    """

    def __init__(self, picture: nn.Module, network: nn.Module, auxiliary_weight: float) -> None:
        super().__init__()
        self.picture = picture
        self.network = network
        self.auxiliary_weight = auxiliary_weight

    def forward(self, features: torch.Tensor) -> torch.Tensor | AuxiliaryLogits:
        """Map a batch of features to logits `[b, k]`, in training maybe with auxiliary ones."""
        output = self.network(channels_together(self.picture(features)))
        if isinstance(output, torch.Tensor):
            return output
        logits, *auxiliary = output
        return AuxiliaryLogits(logits, tuple(auxiliary), self.auxiliary_weight)


def classifier_names() -> list[str]:
    """Names of torchvision's classifiers, sorted."""
    from torchvision import models

    return list(models.list_models(module=models))


def torchvision_classifier(
    spec: TorchvisionSpec, inputs: InputSpec, classes: int
) -> TorchvisionClassifier:
    """Build a classifier of torchvision, without its weights.

    Its last layer, and those of auxiliary classifiers, are built for the number of classes. For
    a spectrogram the first convolution gets one input channel, its kernels summed over the
    three: what they make of a grey picture. Pictures for pre-trained weights are normalised as
    their training pictures were; a spectrogram is standardised in any case.

    Args:
        spec: which one, and its builder's arguments.
        inputs: of layout `bands` or `image`.
        classes: `k`.

    Raises:
        TorchvisionError: torchvision has no such classifier, or its builder refuses the parameters.
    """
    network = _network(spec, classes)
    front, channels = picture(inputs)
    if channels == 1:
        _sum_colours(network)
    elif spec.weights is not None:
        inception = spec.model in _INCEPTIONS
        front = Normalized(*(([0.5] * 3, [0.5] * 3) if inception else (_MEAN, _STD)))
    return TorchvisionClassifier(front, network, _AUXILIARY_WEIGHT.get(spec.model, 0.3))


def load_pretrained(
    model: TorchvisionClassifier, state: OrderedDict[str, torch.Tensor], heads: set[str]
) -> None:
    """Copy torchvision's or foldgrid's own weights into a classifier.

    Args:
        model: changed in place.
        state: by the names of torchvision's network, or by those of the whole model.
        heads: names in the whole model whose shapes depend on the number of classes.

    Raises:
        WeightsError: names or shapes that do not fit.
    """
    if any(name.startswith("network.") for name in state):
        load_weights(model, state, heads)
        return
    network = model.network
    stem = _first_convolution(network)
    for name in list(state):
        old = _OLD_DENSE_NAME.fullmatch(name)
        if old:
            state["".join(old.groups())] = state.pop(name)
        elif name == f"{stem}.weight" and network.get_parameter(name).shape[1] == 1:
            state[name] = state[name].sum(dim=1, keepdim=True)
    load_weights(network, state, {name.removeprefix("network.") for name in heads})


def named_weights(model: str, name: str) -> Path:
    """The file of torchvision's own weights, in PyTorch's cache; downloaded once.

    Args:
        model: a classifier of torchvision.
        name: of its weights, e.g. `DEFAULT`.

    Raises:
        WeightsError: torchvision has no such weights, or they cannot be downloaded.
    """
    from torchvision.models import get_model_weights

    known = get_model_weights(model).__members__
    if name not in known:
        raise WeightsError(f"torchvision has {', '.join(known) or 'no weights'} for {model}")
    url = str(known[name].url)
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.exists():
        _download(url, path)
    return path


def _download(url: str, path: Path) -> None:
    # torchvision's file names end in the beginning of their hash.
    digest = re.search("-([0-9a-f]{8,})[.]", path.name)
    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_WAIT_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url, str(path), digest.group(1) if digest else None, progress=False
        )
    except (OSError, RuntimeError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise WeightsError(f"{url} cannot be downloaded to {path}: {reason}") from error
    finally:
        socket.setdefaulttimeout(waited)


def _network(spec: TorchvisionSpec, classes: int) -> nn.Module:
    from torchvision.models import get_model_builder

    if spec.model not in classifier_names():
        near = difflib.get_close_matches(spec.model.lower(), classifier_names(), n=3, cutoff=0.5)
        listed = ", ".join(near or ["resnet18", "efficientnet_b0", "mobilenet_v3_small"])
        hint = f"torchvision:{near[0]}" if near else ""
        raise TorchvisionError(("name",), spec.name, f"torchvision's {listed}, ...", hint)
    builder = get_model_builder(spec.model)
    _check_params(spec.model, builder, spec.params)
    given = dict(spec.params)
    if spec.model in _INCEPTIONS:
        # What torchvision does without, but then it warns; with weights it would be lost time.
        given = {"init_weights": spec.weights is None, "aux_logits": True} | given
    try:
        network: nn.Module = builder(weights=None, num_classes=classes, **given)
    # The values are checked by whatever layer they end up in.
    except Exception as error:
        found = f"{spec.params} ({error_line(error)})"
        raise TorchvisionError(("params",), found, f"what {spec.model} takes") from error
    return network


def _check_params(name: str, builder: Any, params: Mapping[str, Any]) -> None:
    """Refuse arguments that neither the builder nor its network's class takes."""
    signature = inspect.signature(builder)
    network = inspect.signature(signature.return_annotation)
    taken = {**network.parameters, **signature.parameters}
    plain = [p for p in taken.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = {p.name for p in plain}
    # Others without a default are what the builder itself gives; functions are no YAML values.
    offered = [
        p.name
        for p in plain
        if p.name in _DEFAULTED
        or (
            p.default is not p.empty and p.name not in _OURS and "Callable" not in str(p.annotation)
        )
    ]
    for key in params:
        if key not in known or key in _OURS:
            found = (
                f"{key}, which foldgrid gives itself" if key in _OURS else f"unknown key {key!r}"
            )
            near = difflib.get_close_matches(key, offered, n=1)
            allowed = ", ".join(offered) or "none"
            raise TorchvisionError(("params", key), found, allowed, "".join(near))


def _sum_colours(network: nn.Module) -> None:
    """Give the first convolution one input channel in place of three."""
    layer = network.get_submodule(_first_convolution(network))
    assert isinstance(layer, nn.Conv2d)
    layer.weight = nn.Parameter(layer.weight.detach().sum(dim=1, keepdim=True))
    layer.in_channels = 1


def _first_convolution(network: nn.Module) -> str:
    convolutions = (n for n, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    name: str = next(convolutions)
    return name
