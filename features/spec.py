"""FeatureSpec: the parameters of each kind of features, with units and the shape they give."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

SampleRate = Annotated[int, Field(strict=True, ge=1000, le=384_000)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=3600, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Frequency = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


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


class _Clipped(_Spec):
    """What every kind shares: the rate, and how a clip is brought to one length.

    Attributes:
        kind: names the class.
        sample_rate: Hz, after resampling.
        seconds: length of every clip after fitting.
        fit: how a shorter clip is filled at its end; a longer one keeps its start.
    """

    kind: str
    sample_rate: SampleRate = 16_000
    seconds: Seconds = 5.0
    fit: Literal["pad", "loop"] = "pad"

    @property
    def samples(self) -> int:
        """Samples of a fitted clip."""
        return round(self.seconds * self.sample_rate)

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


class LogMelSpec(_Clipped):
    """Mel spectrogram in dB, reference 1.0.

    Attributes:
        n_fft: samples of a Fourier window (Hann).
        hop_length: samples between frames; frames are centred, the clip padded with zeros.
        n_mels: bands, Slaney's scale and normalisation.
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; null is half the rate.
        top_db: values lower than the clip's maximum by more than this are raised to it, dB;
            null leaves them.
        backend: the library that computes it; both agree to 0.01 dB.
    """

    kind: Literal["log_mel"] = "log_mel"
    n_fft: Count = 1024
    hop_length: Count = 512
    n_mels: Count = 80
    f_min: Frequency = 0.0
    f_max: Frequency | None = None
    top_db: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = 80.0
    backend: Literal["librosa", "torchaudio"] = "torchaudio"

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_mels, frames)`."""
        # The padding is n_fft // 2 at both ends, which for an odd window is one sample less.
        return self.n_mels, 1 + (self.samples - self.n_fft % 2) // self.hop_length

    @model_validator(mode="after")
    def _band_edges(self) -> LogMelSpec:
        half = self.sample_rate / 2
        # Resolved here so that null and the value that it stands for are one configuration.
        top = half if self.f_max is None else self.f_max
        if top > half:
            raise invalid("f_max", f"{top:g}", f"at most half the sample rate, {half:g} Hz")
        if self.f_min >= top:
            raise invalid("f_min", f"{self.f_min:g}", f"below f_max, {top:g} Hz")
        if self.n_mels > self.n_fft // 2 + 1:
            raise invalid("n_mels", self.n_mels, f"at most n_fft/2 + 1, {self.n_fft // 2 + 1}")
        object.__setattr__(self, "f_max", top)
        return self


FeatureSpec = WaveformSpec | LogMelSpec

FEATURE_KINDS: dict[str, type[WaveformSpec] | type[LogMelSpec]] = {
    "waveform": WaveformSpec,
    "log_mel": LogMelSpec,
}
