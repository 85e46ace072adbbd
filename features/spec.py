"""FeatureSpec: the parameters of each kind of features, with units and the shape they give."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

SampleRate = Annotated[int, Field(strict=True, ge=1000, le=384_000)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=3600, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Frequency = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Range = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
ImageRange = Annotated[float, Field(strict=True, gt=0, le=200, allow_inf_nan=False)]
Side = Annotated[int, Field(strict=True, ge=32, le=1024)]
Backend = Literal["librosa", "torchaudio"]
StoredType = Literal["float32", "uint8"]

_ITEM_BYTES: dict[StoredType, int] = {"float32": 4, "uint8": 1}


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def invalid(field: str, found: object, allowed: str) -> PydanticCustomError:
    """A fault between fields: which one to name, what was found and what is allowed."""
    context = {"field": field, "found": str(found), "allowed": allowed}
    return PydanticCustomError("constraint", "{field}: found {found}; allowed {allowed}", context)


class Windows(_Spec):
    """Overlapping pieces of a waveform that become its channels.

    Attributes:
        seconds: length of a window.
        hop: distance between the starts of neighbouring windows, seconds.
    """

    seconds: Seconds
    hop: Seconds


class _Clipped(_Spec, ABC):
    """What every kind shares: the rate, how a clip is brought to one length, and how it is kept.

    Attributes:
        kind: names the class.
        sample_rate: Hz, after resampling.
        seconds: length of every clip after fitting.
        fit: how a shorter clip is filled at its end; a longer one keeps its start.
        normalize: scales each clip before it is fitted: `peak` to a largest sample of 1, `rms`
            to a root mean square of 1; null leaves its level. A silent clip stays silent.
    """

    kind: str
    sample_rate: SampleRate = 16_000
    seconds: Seconds = 5.0
    fit: Literal["pad", "loop"] = "pad"
    normalize: Literal["peak", "rms"] | None = None

    @property
    def samples(self) -> int:
        """Samples of a fitted clip."""
        return round(self.seconds * self.sample_rate)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one clip's features as a model gets them."""

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of one clip's features as the cache and the object store keep them."""
        return self.shape

    @property
    def stored_dtype(self) -> StoredType:
        """The array type that the cache and the object store keep; see `features.arrays`."""
        return "float32"

    @property
    def stored_bytes(self) -> int:
        """Of one clip's features in the cache and the object store."""
        return _ITEM_BYTES[self.stored_dtype] * math.prod(self.stored_shape)

    @model_validator(mode="after")
    def _at_least_one_sample(self) -> _Clipped:
        if self.samples < 1:
            raise invalid("seconds", self.seconds, "at least one sample at this rate")
        return self


class WaveformSpec(_Clipped):
    """Samples in -1..1, as one channel or cut into windows as channels."""

    kind: Literal["waveform"] = "waveform"
    windows: Windows | None = None

    @property
    def window_samples(self) -> tuple[int, int]:
        """Length and hop of a window in samples; the whole clip where there are no windows."""
        if self.windows is None:
            return self.samples, self.samples
        return (
            round(self.windows.seconds * self.sample_rate),
            round(self.windows.hop * self.sample_rate),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """`(windows, samples in a window)`; a rest shorter than a window is left out."""
        length, hop = self.window_samples
        return 1 + (self.samples - length) // hop, length

    @model_validator(mode="after")
    def _windows_fit(self) -> WaveformSpec:
        if self.windows is None:
            return self
        length, hop = self.window_samples
        if length > self.samples:
            raise invalid(
                "windows.seconds", self.windows.seconds, f"at most the clip's {self.seconds} s"
            )
        if length < 1 or hop < 1:
            raise invalid(
                "windows.hop" if hop < 1 else "windows.seconds",
                self.windows.hop if hop < 1 else self.windows.seconds,
                "at least one sample at this rate",
            )
        return self


class _Mel(_Clipped):
    """What every kind made from a mel spectrogram shares.

    Attributes:
        n_fft: samples of a Fourier window (Hann).
        hop_length: samples between frames; frames are centred, the clip padded with zeros.
        n_mels: bands, Slaney's scale and normalisation.
    """

    n_fft: Count = 1024
    hop_length: Count = 512
    n_mels: Count = 80

    @property
    def frames(self) -> int:
        """Time steps of the spectrogram."""
        # The padding is n_fft // 2 at both ends, which for an odd window is one sample less.
        return 1 + (self.samples - self.n_fft % 2) // self.hop_length


class LogMelSpec(_Mel):
    """Mel spectrogram in dB, reference 1.0.

    Attributes:
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; null is half the rate.
        top_db: values lower than the clip's maximum by more than this are raised to it, dB;
            null leaves them.
        backend: the library that computes it; both agree to 0.0001 dB.
    """

    kind: Literal["log_mel"] = "log_mel"
    f_min: Frequency = 0.0
    f_max: Frequency | None = None
    top_db: Range | None = 80.0
    backend: Backend = "torchaudio"

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_mels, frames)`."""
        return self.n_mels, self.frames

    @model_validator(mode="after")
    def _bands_exist(self) -> LogMelSpec:
        _resolve_bands(self)
        return self


class MfccSpec(_Mel):
    """Mel-frequency cepstral coefficients: the cosine transform of the bands in dB.

    Davis and Mermelstein 1980, "Comparison of parametric representations for monosyllabic word
    recognition in continuously spoken sentences".

    Attributes:
        n_mfcc: coefficients, from the mean (coefficient 0) upwards; at most `n_mels`.
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; null is half the rate.
        top_db: as in `LogMelSpec`, before the transform.
        backend: the library that computes it; both agree to 0.0001.
    """

    kind: Literal["mfcc"] = "mfcc"
    n_mfcc: Count = 40
    f_min: Frequency = 0.0
    f_max: Frequency | None = None
    top_db: Range | None = 80.0
    backend: Backend = "torchaudio"

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_mfcc, frames)`."""
        return self.n_mfcc, self.frames

    @model_validator(mode="after")
    def _bands_exist(self) -> MfccSpec:
        _resolve_bands(self)
        if self.n_mfcc > self.n_mels:
            raise invalid("n_mfcc", self.n_mfcc, f"at most n_mels, {self.n_mels}")
        return self


class ClipStatisticsSpec(_Mel):
    """Mean and standard deviation over time of cepstral coefficients and zero-crossing rate.

    The features of Piczak 2015, "ESC: Dataset for Environmental Sound Classification": one vector
    a clip, whatever its length, for classifiers that know nothing of time.

    Attributes:
        n_mfcc: coefficients, from coefficient 1 upwards: 0, the clip's level, is left out; less
            than `n_mels`.
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; null is half the rate.
        top_db: as in `LogMelSpec`, before the cosine transform.
        backend: the library that computes the coefficients; both agree to 0.0001.
    """

    kind: Literal["clip_statistics"] = "clip_statistics"
    n_mfcc: Count = 12
    f_min: Frequency = 0.0
    f_max: Frequency | None = None
    top_db: Range | None = 80.0
    backend: Backend = "torchaudio"

    @property
    def shape(self) -> tuple[int]:
        """`(2 * n_mfcc + 2,)`, in the order that `features.statistics` gives."""
        return (2 * self.n_mfcc + 2,)

    @model_validator(mode="after")
    def _bands_exist(self) -> ClipStatisticsSpec:
        _resolve_bands(self)
        if self.n_mfcc >= self.n_mels:
            raise invalid("n_mfcc", self.n_mfcc, f"less than n_mels, {self.n_mels}")
        return self


class MelImageSpec(_Mel):
    """A square picture of the mel spectrogram, low frequencies at the bottom, time to the right.

    Attributes:
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; null is half the rate.
        top_db: the range shown: 1 is the clip's maximum, 0 what is lower by this or more, dB.
        size: height and width, pixels.
        backend: the library that computes the spectrogram; both agree to 0.0001.
    """

    kind: Literal["mel_image"] = "mel_image"
    f_min: Frequency = 0.0
    f_max: Frequency | None = None
    top_db: ImageRange = 80.0
    size: Side = 224
    backend: Backend = "torchaudio"

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(3, size, size)`, three equal channels."""
        return 3, self.size, self.size

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """`(1, size, size)`: one channel stands for the three."""
        return 1, self.size, self.size

    @property
    def stored_dtype(self) -> StoredType:
        """`uint8`: 0..255 stands for 0..1."""
        return "uint8"

    @model_validator(mode="after")
    def _bands_exist(self) -> MelImageSpec:
        _resolve_bands(self)
        return self


MelSpec = LogMelSpec | MfccSpec | MelImageSpec | ClipStatisticsSpec
FeatureSpec = WaveformSpec | MelSpec

FEATURE_KINDS: dict[str, type[FeatureSpec]] = {
    "waveform": WaveformSpec,
    "log_mel": LogMelSpec,
    "mfcc": MfccSpec,
    "mel_image": MelImageSpec,
    "clip_statistics": ClipStatisticsSpec,
}


def _resolve_bands(spec: MelSpec) -> None:
    """Fill in the upper edge, and refuse bands that the spectrogram cannot have."""
    half = spec.sample_rate / 2
    # Resolved here so that null and the value that it stands for are one configuration.
    top = half if spec.f_max is None else spec.f_max
    if top > half:
        raise invalid("f_max", f"{top:g}", f"at most half the sample rate, {half:g} Hz")
    if spec.f_min >= top:
        raise invalid("f_min", f"{spec.f_min:g}", f"below f_max, {top:g} Hz")
    if spec.n_mels > spec.n_fft // 2 + 1:
        raise invalid("n_mels", spec.n_mels, f"at most n_fft/2 + 1, {spec.n_fft // 2 + 1}")
    object.__setattr__(spec, "f_max", top)
