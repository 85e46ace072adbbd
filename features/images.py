"""Images: pictures of mel spectrograms for models that were made for photographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.spec import MelImageSpec
from features.spectrograms import AMIN, mel_power


def mel_image(waveform: NDArray[np.float32], spec: MelImageSpec) -> NDArray[np.float32]:
    """The mel spectrogram of a clip as brightness.

    Louder or softer, a clip has the same picture. A clip without any band above -100 dB is
    silent, and black.

    Args:
        waveform: `float32 [spec.samples]`.
        spec: bands, range and size.

    Returns:
        `float32 [size, size]`, 0 (`top_db` below the clip's maximum, or less) to 1 (the maximum);
        row 0 is the top, the highest band, and column 0 the start of the clip.
    """
    power = mel_power(waveform, spec)
    brightness = _brightness(power, spec.top_db)
    return _resized(brightness[::-1].astype(np.float32), spec.size)


def as_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image `[h, w]` of 0..1 as it is stored, `uint8 [1, h, w]`."""
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)[None]


def _brightness(power: NDArray[np.float64], top_db: float) -> NDArray[np.float64]:
    peak = power.max()
    if peak <= AMIN:
        return np.zeros_like(power)
    shares = np.maximum(power / peak, 10 ** (-top_db / 10))
    return np.asarray(1 + 10 * np.log10(shares) / top_db)


def _resized(picture: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A picture `[h, w]` as `[size, size]`, without aliasing where it shrinks."""
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    with torch.inference_mode():
        image = torch.tensor(picture)[None]
        scaled = resize(image, [size, size], InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(scaled[0].numpy())
