"""The picture that a two-dimensional network looks at, made from one clip's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.spec import InputSpec

__all__ = ["BandsPicture", "Normalized", "channels_together", "picture"]


def channels_together(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures `[b, c, h, w]` with the channels of a pixel together in memory, on a CPU.

    What a network makes of them has that layout too, in which a CPU is up to twice as fast.
    """
    if pictures.device.type != "cpu":
        return pictures
    # Not `contiguous`, which leaves pictures of one channel in a layout that counts as the other.
    return pictures.clone(memory_format=torch.channels_last)


class BandsPicture(nn.Module):
    """A spectrogram `[b, bands, t]` as a picture of one channel, standardised.

    Decibels lie far from zero, where the zeros that convolutions pad with would be the loudest
    part of the picture. So the picture is brought to mean 0 and variance 1, by the batch in
    training and by running statistics in evaluation (Ioffe and Szegedy 2015,
    https://arxiv.org/abs/1502.03167), without scale and shift: there is nothing to learn here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)

    def forward(self, bands: torch.Tensor) -> torch.Tensor:
        """Map `[b, bands, t]` to `[b, 1, bands, t]`."""
        standardised: torch.Tensor = self.norm(bands.unsqueeze(1))
        return standardised


class Normalized(nn.Module):
    """Each channel of a picture less its mean, divided by its standard deviation."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map `[b, c, h, w]` to the same shape."""
        return (image - self.mean) / self.std


def picture(inputs: InputSpec) -> tuple[nn.Module, int]:
    """What turns a batch of features into pictures, and the pictures' channels.

    Args:
        inputs: of layout `bands`, which become the height of a one-channel picture, or `image`.
    """
    if inputs.layout == "bands":
        return BandsPicture(), 1
    return nn.Identity(), inputs.shape[0]
