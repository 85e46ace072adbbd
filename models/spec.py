"""ModelSpec: the parameters of each model, and the inputs that it can take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

Init = Literal["random", "xavier", "kaiming"]
Layout = Literal["samples", "bands", "image", "statistics"]
Dropout = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
Weights = Annotated[str, Field(strict=True, min_length=1)] | None

WIDTH = 512
"""Width of `cnn_transformer`'s tokens, which the heads share out."""


_NOT_IN_TIME: dict[Layout, str] = {"image": "images", "statistics": "clip_statistics"}
"""Features that have no time steps."""

_NO_PICTURE: dict[Layout, str] = {"samples": "waveform", "statistics": "clip_statistics"}
"""Features that are no picture."""


class InputError(ValueError):
    """The features do not fit the model; the message says what would."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model is fed with.

    Attributes:
        layout: `samples` (channels are windows of a waveform), `bands` (channels are bands of
            a spectrogram, time steps are frames), `image` (a picture of a spectrogram) or
            `statistics` (numbers of a whole clip, without time steps).
        shape: `(channels, time steps)` of one clip; of an image `(3, height, width)`, of
            statistics `(numbers,)`.
    """

    layout: Layout
    shape: tuple[int, ...]


def is_weights_name(weights: str) -> bool:
    """Whether weights are named as torchvision names its own (`DEFAULT`), not as a file."""
    return re.fullmatch("[A-Z][A-Z0-9_]*", weights) is not None


def _invalid(field: str, found: object, allowed: str) -> PydanticCustomError:
    """A fault between fields: which one to name, what was found and what is allowed."""
    context = {"field": field, "found": str(found), "allowed": allowed}
    return PydanticCustomError("constraint", "{field}: found {found}; allowed {allowed}", context)


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def check_input(self, spec: InputSpec) -> None:
        """Raise InputError unless the model can take such features."""


class _Weighted(_Spec):
    """What the models share that can start from a file of weights.

    Attributes:
        init: how the weights start that no file brings.
        weights: a state dict to start from, as `.safetensors`, `.pt` or `.pth`; its classifier
            is left out where it is for another number of classes. Every worker reads it by its
            absolute path, so that on a cluster it lies at the same place on each machine.
    """

    if TYPE_CHECKING:  # Fields of each model, which come after its own.
        init: Init
        weights: Weights

    @model_validator(mode="after")
    def _weights_are_no_draw(self) -> _Weighted:
        if self.weights is None:
            return self
        if self.init != "random":
            raise _invalid("init", self.init, "random where there are weights")
        self._check_weights(self.weights)
        return self

    def _check_weights(self, weights: str) -> None:
        if is_weights_name(weights):
            raise _invalid("weights", weights, "a .safetensors, .pt or .pth file")

    @model_serializer(mode="wrap")
    def _without_no_weights(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So that a model without weights keeps the identity that it had before there were any.
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if (key, value) != ("weights", None)}


def _shortest(layout: Layout) -> int:
    """Time steps that leave one step after the four blocks of `cnn1d`."""
    # samples: kernel 80, stride 16, four pools by 4; bands: kernel 9, stride 1, four pools by 2.
    return 80 + 16 * (4**4 - 1) if layout == "samples" else 9 + (2**4 - 1)


class _Convolutional(_Weighted):
    """What `cnn1d` and the models built on its blocks share."""

    def check_input(self, spec: InputSpec) -> None:
        """Raise InputError for images, statistics, and features too short for the four pools."""
        if spec.layout in _NOT_IN_TIME:
            found = _NOT_IN_TIME[spec.layout]
            raise InputError(f"features of kind waveform, log_mel or mfcc, no {found}")
        needed = _shortest(spec.layout)
        if spec.shape[-1] < needed:
            unit = "samples" if spec.layout == "samples" else "frames"
            raise InputError(
                f"at least {needed} {unit} a channel, the features have {spec.shape[-1]}"
            )


class _Pictorial(_Weighted):
    """What the models share that look at a spectrogram as a picture."""

    def check_input(self, spec: InputSpec) -> None:
        """Raise InputError for waveforms, statistics, and pictures too small for the pools."""
        if spec.layout in _NO_PICTURE:
            found = _NO_PICTURE[spec.layout]
            raise InputError(f"features of kind log_mel, mfcc or mel_image, no {found}")
        self._check_size(*spec.shape[-2:])

    def _check_size(self, height: int, width: int) -> None:
        """Raise InputError for pictures of the wrong size."""


def _refuse_smaller(side: int, height: int, width: int) -> None:
    if min(height, width) < side:
        raise InputError(
            f"pictures of at least {side} x {side} pixels (bands x frames),"
            f" the features have {height} x {width}"
        )


class Cnn1dSpec(_Convolutional):
    """The M5 network of Dai et al. 2017, windows or bands as channels."""

    name: Literal["cnn1d"] = "cnn1d"
    init: Init = "random"
    weights: Weights = None


class CnnTransformerSpec(_Convolutional):
    """The blocks of `cnn1d`, their time steps encoded by a transformer.

    Attributes:
        heads: attention heads; divides the width, 512.
        layers: encoder layers.
        dropout: probability in the encoder.
    """

    name: Literal["cnn_transformer"] = "cnn_transformer"
    heads: Annotated[int, Field(strict=True, ge=1, le=WIDTH)] = 4
    layers: Annotated[int, Field(strict=True, ge=1, le=64)] = 2
    dropout: Dropout = 0.1
    init: Init = "random"
    weights: Weights = None

    @model_validator(mode="after")
    def _heads_divide_width(self) -> CnnTransformerSpec:
        if WIDTH % self.heads:
            allowed = f"a divisor of the width {WIDTH} (1, 2, 4, 8, ...)"
            raise _invalid("heads", self.heads, allowed)
        return self


class Cnn2dSpec(_Pictorial):
    """Four blocks of two 3x3 convolutions on a spectrogram, after Kong et al. 2020.

    Attributes:
        channels: of the first block; each further one has twice as many.
        branches: such networks side by side, trained each by its own loss; their mean answers.
        dropout: probability before the classifier.
    """

    name: Literal["cnn2d"] = "cnn2d"
    channels: Annotated[int, Field(strict=True, ge=1, le=512)] = 16
    branches: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    dropout: Dropout = 0.2
    init: Init = "random"
    weights: Weights = None

    def _check_size(self, height: int, width: int) -> None:
        _refuse_smaller(2**4, height, width)


class GoogLeNetSpec(_Pictorial):
    """GoogLeNet (Inception v1) of Szegedy et al. 2015 with its auxiliary classifiers."""

    name: Literal["googlenet"] = "googlenet"
    init: Init = "random"
    weights: Weights = None

    def _check_size(self, height: int, width: int) -> None:
        _refuse_smaller(2**5, height, width)


class ResNet34Spec(_Pictorial):
    """The residual network of 34 layers of He et al. 2016."""

    name: Literal["resnet34"] = "resnet34"
    init: Init = "random"
    weights: Weights = None

    def _check_size(self, height: int, width: int) -> None:
        _refuse_smaller(2**5, height, width)


class TorchvisionSpec(_Pictorial):
    """A classifier of torchvision.

    Attributes:
        name: `torchvision:<name>`, the name as in `torchvision.models.list_models()`.
        weights: as a file, or torchvision's own by their name there (`DEFAULT`), which each
            machine downloads once to PyTorch's cache. Images, which come in 0..1, are normalised
            as the pictures were that torchvision's weights come from.
        params: keyword arguments of torchvision's builder.
    """

    name: Annotated[str, Field(strict=True, pattern=r"^torchvision:\w+$")]
    init: Init = "random"
    weights: Weights = None
    params: dict[str, Any] = Field(default_factory=dict)

    @property
    def model(self) -> str:
        """The name without `torchvision:`."""
        return self.name.partition(":")[2]

    def _check_weights(self, weights: str) -> None:
        """Names are torchvision's to check, files too."""


class FactorySpec(_Spec):
    """A user's own model: `factory(input_shape, classes, **params)` returns an `nn.Module`.

    Attributes:
        name: `package.module:factory`.
        params: keyword arguments of the factory.
        init: `random` leaves the module as the factory made it.
    """

    name: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    init: Init = "random"
    params: dict[str, Any] = Field(default_factory=dict)


class EstimatorSpec(_Spec):
    """A classifier of scikit-learn, which is fitted in one go and takes features of any kind.

    Attributes:
        name: `sklearn:<Estimator>`, the name of its class.
        standardize: bring each feature to mean 0 and deviation 1 over the training split. Not by
            default: an estimator under its own name does what it does in scikit-learn. Distances,
            margins and gradients depend on the features' scales, trees do not.
        params: keyword arguments of the estimator.
    """

    name: Annotated[str, Field(strict=True, pattern=r"^sklearn:\w+$")]
    standardize: Annotated[bool, Field(strict=True)] = False
    params: dict[str, Any] = Field(default_factory=dict)

    @property
    def estimator(self) -> str:
        """The name without `sklearn:`."""
        return self.name.partition(":")[2]


BuiltIn = Cnn1dSpec | CnnTransformerSpec | Cnn2dSpec | GoogLeNetSpec | ResNet34Spec
# Other names with a colon also look like a factory's: pydantic takes the first that fits equally.
NetworkSpec = BuiltIn | TorchvisionSpec | FactorySpec
ModelSpec = BuiltIn | TorchvisionSpec | EstimatorSpec | FactorySpec

MODELS: dict[str, type[BuiltIn]] = {
    "cnn1d": Cnn1dSpec,
    "cnn_transformer": CnnTransformerSpec,
    "cnn2d": Cnn2dSpec,
    "googlenet": GoogLeNetSpec,
    "resnet34": ResNet34Spec,
}

MODEL_NAMES = (*MODELS, "torchvision:<name>", "sklearn:<Estimator>", "package.module:factory")
"""What `model.name` can be."""


def model_class(name: str) -> type[ModelSpec] | None:
    """The class of the parameters of the model with this name; None where there is none."""
    package, colon, _ = name.partition(":")
    if not colon:
        return MODELS.get(name)
    if package == "torchvision":
        return TorchvisionSpec
    return EstimatorSpec if package == "sklearn" else FactorySpec
