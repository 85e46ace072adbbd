"""AugmentSpec: random changes of the training clips, and which features they suit."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from features.spec import FeatureSpec, WaveformSpec

Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Masks = Annotated[int, Field(strict=True, ge=0, le=100)]


class AugmentError(ValueError):
    """An augmentation that the features cannot have.

    Attributes:
        field: its key.
        found: what was asked for.
        allowed: what would do.
    """

    def __init__(self, field: str, found: str, allowed: str) -> None:
        super().__init__(f"{field}: found {found}; allowed {allowed}")
        self.field, self.found, self.allowed = field, found, allowed


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SpecAugmentSpec(_Spec):
    """Masks of a spectrogram (Park et al. 2019, https://arxiv.org/abs/1904.08779).

    The paper's time warping, of which it reports the least effect, is left out. A mask takes
    the clip's mean.

    Attributes:
        time_masks: how many spans of frames are masked.
        time_width: the widest one, as a share of the frames.
        frequency_masks: how many spans of bands are masked.
        frequency_width: the widest one, as a share of the bands.
    """

    time_masks: Masks = 2
    time_width: Share = 0.1
    frequency_masks: Masks = 1
    frequency_width: Share = 0.15


class AugmentSpec(_Spec):
    """Random changes of the training clips, drawn anew in each epoch.

    They are made in the order time_shift, gain, mixup, spec_augment.

    Attributes:
        time_shift: rolls a clip around by up to this share of its length, either way; 0.5 is
            enough for every shift. Windows are rolled as the waveform that they were cut from.
        gain: louder or softer by up to so many dB; waveform and log_mel only.
        spec_augment: masks, for spectrograms; `true` for the defaults.
        mixup: each clip is mixed with another one of its batch, its share drawn from
            Beta(mixup, mixup) and the loss shared alike (Zhang et al. 2018,
            https://arxiv.org/abs/1710.09412).
    """

    spec_augment: SpecAugmentSpec | None = None
    mixup: Annotated[float, Field(strict=True, ge=0.01, le=100, allow_inf_nan=False)] | None = None
    time_shift: Share | None = None
    gain: Annotated[float, Field(strict=True, gt=0, le=60, allow_inf_nan=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _true_is_the_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("spec_augment"), bool):
            return data
        return data | {"spec_augment": {} if data["spec_augment"] else None}

    @property
    def changes_anything(self) -> bool:
        """Whether any augmentation is asked for."""
        wanted = (self.spec_augment, self.mixup, self.time_shift, self.gain)
        return any(value is not None for value in wanted)


def check_augment(spec: AugmentSpec, features: FeatureSpec) -> None:
    """Raise AugmentError for an augmentation that such features cannot have."""
    if features.kind == "clip_statistics":
        _check_statistics(spec)
    if spec.spec_augment is not None and features.kind == "waveform":
        raise AugmentError("spec_augment", "masks of a waveform", "it with a spectrogram only")
    if spec.gain is not None and features.kind not in ("waveform", "log_mel"):
        found = f"{spec.gain:g} with features.kind {features.kind}"
        raise AugmentError("gain", found, "null: only waveform and log_mel have a level")
    if spec.time_shift is not None and isinstance(features, WaveformSpec):
        length, hop = features.window_samples
        if hop > length:
            found = f"{spec.time_shift:g} with windows that leave gaps"
            raise AugmentError("time_shift", found, "windows.hop of at most windows.seconds")


def _check_statistics(spec: AugmentSpec) -> None:
    """Raise AugmentError for what needs the time steps that clip statistics are made over."""
    for field in ("spec_augment", "time_shift"):
        if getattr(spec, field) is not None:
            found = f"{field} with features.kind clip_statistics"
            raise AugmentError(field, found, "null: clip statistics have no time steps")
