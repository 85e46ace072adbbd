"""ModelSpec: the parameters of each model, and the inputs that it can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Init = Literal["random", "xavier", "kaiming"]
Layout = Literal["samples", "bands", "image"]

WIDTH = 512
"""Width of `cnn_transformer`'s tokens, which the heads share out."""


class InputError(ValueError):
    """The features do not fit the model; the message says what would."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model is fed with.

    Attributes:
        layout: `samples` (channels are windows of a waveform), `bands` (channels are bands of
            a spectrogram, time steps are frames) or `image` (a picture of a spectrogram).
        shape: `(channels, time steps)` of one clip; of an image `(3, height, width)`.
    """

    layout: Layout
    shape: tuple[int, ...]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def check_input(self, spec: InputSpec) -> None:
        """Raise InputError unless the model can take such features."""


def _shortest(layout: Layout) -> int:
    """Time steps that leave one step after the four blocks of `cnn1d`."""
    # samples: kernel 80, stride 16, four pools by 4; bands: kernel 9, stride 1, four pools by 2.
    return 80 + 16 * (4**4 - 1) if layout == "samples" else 9 + (2**4 - 1)


class _Convolutional(_Spec):
    """What `cnn1d` and the models built on its blocks share."""

    def check_input(self, spec: InputSpec) -> None:
        """Raise InputError for features too short for the four pools."""
        needed = _shortest(spec.layout)
        if spec.shape[-1] < needed:
            unit = "samples" if spec.layout == "samples" else "frames"
            raise InputError(
                f"at least {needed} {unit} a channel, the features have {spec.shape[-1]}"
            )


class Cnn1dSpec(_Convolutional):
    """The M5 network of Dai et al. 2017, windows or bands as channels."""

    name: Literal["cnn1d"] = "cnn1d"
    init: Init = "random"


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
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)] = 0.1
    init: Init = "random"

    @model_validator(mode="after")
    def _heads_divide_width(self) -> CnnTransformerSpec:
        if WIDTH % self.heads:
            allowed = f"a divisor of the width {WIDTH} (1, 2, 4, 8, ...)"
            raise PydanticCustomError(
                "constraint",
                "{field}: found {found}; allowed {allowed}",
                {"field": "heads", "found": str(self.heads), "allowed": allowed},
            )
        return self


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


ModelSpec = Cnn1dSpec | CnnTransformerSpec | FactorySpec

MODELS: dict[str, type[Cnn1dSpec] | type[CnnTransformerSpec]] = {
    "cnn1d": Cnn1dSpec,
    "cnn_transformer": CnnTransformerSpec,
}
