"""Random changes of a batch of features, on the device that it lies on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from features.augment_spec import AugmentSpec, SpecAugmentSpec, check_augment
from features.spec import FeatureSpec, WaveformSpec


@dataclass(frozen=True)
class Mixture:
    """Which clip of the batch was mixed into each one.

    Attributes:
        partner: positions in the batch, int64 `[b]`.
        share: of the clip itself, float32 `[b]` in 0..1; the partner has the rest.
    """

    partner: torch.Tensor
    share: torch.Tensor


class Augmenter:
    """Augments batches of one kind of features.

    The draws of a batch depend on its seed and size alone, and leave the global generators as
    they were: dropout draws the same with augmentation as without.
    """

    def __init__(self, spec: AugmentSpec, features: FeatureSpec) -> None:
        """Prepare the augmentation.

        Args:
            spec: what to change.
            features: what a batch holds.

        Raises:
            AugmentError: the features cannot be changed so.
        """
        check_augment(spec, features)
        self._spec = spec
        self._features = features

    def __call__(self, batch: torch.Tensor, seed: int) -> tuple[torch.Tensor, Mixture | None]:
        """A changed copy of a batch `[b, c, t]` or `[b, 3, h, w]`, and what was mixed in.

        Each augmentation draws from a seed of its own: it does the same whatever others there
        are.
        """
        spec, mixture = self._spec, None
        if spec.time_shift is not None:
            with _seeded(seed, 0):
                batch = self._shifted(batch, spec.time_shift)
        if spec.gain is not None:
            with _seeded(seed, 1):
                batch = self._amplified(batch, spec.gain)
        if spec.mixup is not None:
            with _seeded(seed, 2):
                batch, mixture = mix(batch, spec.mixup)
        if spec.spec_augment is not None:
            with _seeded(seed, 3):
                batch = mask(batch, spec.spec_augment)
        return batch, mixture

    def _shifted(self, batch: torch.Tensor, share: float) -> torch.Tensor:
        features = self._features
        if not isinstance(features, WaveformSpec) or features.windows is None:
            return roll(batch, share)
        length, hop = features.window_samples
        joined = torch.cat([batch[:, :-1, :hop].flatten(1), batch[:, -1]], dim=1)
        return roll(joined, share).unfold(-1, length, hop)

    def _amplified(self, batch: torch.Tensor, most: float) -> torch.Tensor:
        level = torch.empty(len(batch), *[1] * (batch.dim() - 1)).uniform_(-most, most)
        if self._features.kind == "waveform":
            return batch * (10 ** (level / 20)).to(batch.device)
        return batch + level.to(batch.device)


def roll(batch: torch.Tensor, share: float) -> torch.Tensor:
    """Roll each clip along its last axis by up to `share` of it, what leaves coming in again."""
    steps = batch.shape[-1]
    most = _widest(share, steps)
    shift = torch.randint(-most, most + 1, (len(batch), 1))
    index = (torch.arange(steps) - shift).remainder(steps).to(batch.device)
    index = index.view(len(batch), *[1] * (batch.dim() - 2), steps)
    return batch.gather(-1, index.expand_as(batch))


def mask(batch: torch.Tensor, spec: SpecAugmentSpec) -> torch.Tensor:
    """Set spans of bands and frames to the clip's mean.

    Args:
        batch: `[b, bands, frames]`, or `[b, 3, bands, frames]` whose channels are masked alike.
        spec: number and widths of the masks.
    """
    # Not at module level: it takes a part of a second, and few trials need it.
    from torchaudio.functional import mask_along_axis_iid

    bands, frames = batch.shape[-2:]
    keep = torch.ones(len(batch), 1, bands, frames)
    for number, share, axis in (
        (spec.frequency_masks, spec.frequency_width, 2),
        (spec.time_masks, spec.time_width, 3),
    ):
        for _ in range(number):
            size = keep.shape[axis]
            # One more than the widest, because the width is drawn below it and cut. The start
            # is cut too, so that the very last step is next to never masked.
            keep = mask_along_axis_iid(keep, min(_widest(share, size) + 1, size), 0.0, axis)
    kept = (keep if batch.dim() == 4 else keep.squeeze(1)).to(batch.device, torch.bool)
    mean = batch.mean(dim=tuple(range(1, batch.dim())), keepdim=True)
    return torch.where(kept, batch, mean)


def mix(batch: torch.Tensor, alpha: float) -> tuple[torch.Tensor, Mixture]:
    """Mix each clip with another of its batch, by a share from Beta(alpha, alpha)."""
    partner = torch.randperm(len(batch)).to(batch.device)
    # In float64, where a small alpha does not underflow to an even mixture.
    both = torch.tensor(alpha, dtype=torch.float64)
    drawn = torch.distributions.Beta(both, both).sample((len(batch),))
    share = drawn.to(batch.device, torch.float32)
    weight = share.view(-1, *[1] * (batch.dim() - 1))
    return weight * batch + (1 - weight) * batch[partner], Mixture(partner, share)


def _widest(share: float, size: int) -> int:
    """A share of a length in whole steps, at least one."""
    return max(1, math.floor(share * size + 1e-9))


@contextmanager
def _seeded(seed: int, purpose: int) -> Iterator[None]:
    """Draw from a seed for a while; everything above draws on the CPU, alike for each device."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed((seed + purpose) % 2**63)
    try:
        yield
    finally:
        torch.set_rng_state(state)
