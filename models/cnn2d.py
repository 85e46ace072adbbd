"""`cnn2d`: a small network of 3x3 convolutions for spectrograms and little data."""

from __future__ import annotations

import torch
from torch import nn

from models.spec import InputSpec

__all__ = ["BLOCKS", "BandNorm", "Cnn2d", "cnn2d"]

BLOCKS = 4
"""Blocks of two convolutions; between two of them height and width are halved."""


class BandNorm(nn.Module):
    """Batch norm of each band of a spectrogram, which becomes a picture of one channel."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(bands)

    def forward(self, bands: torch.Tensor) -> torch.Tensor:
        """Map `[b, bands, t]` to `[b, 1, bands, t]`."""
        normed: torch.Tensor = self.norm(bands)
        return normed.unsqueeze(1)


class Cnn2d(nn.Module):
    """The convolutional networks of PANNs, made small.

    Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang, M. D. Plumbley: PANNs: Large-scale pretrained
    audio neural networks for audio pattern recognition, IEEE/ACM TASLP 28, 2020.
    https://arxiv.org/abs/1912.10211
    Its blocks after Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556.
    """

    def __init__(self, norm: nn.Module, blocks: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.blocks = blocks
        self.classifier = classifier

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `[b, bands, t]` or `[b, c, h, w]` to logits `[b, k]`."""
        maps: torch.Tensor = self.blocks(self.norm(features))
        steps = maps.mean(dim=2)
        # The mean hears what lasts, the maximum what happens once.
        heard = steps.mean(dim=-1) + steps.amax(dim=-1)
        logits: torch.Tensor = self.classifier(heard)
        return logits


def cnn2d(inputs: InputSpec, classes: int, *, channels: int, dropout: float) -> Cnn2d:
    """Four blocks of convolutions, pooled over frequency and time, and a linear classifier.

    Args:
        inputs: of layout `bands`, each band normalised by itself, or `image`.
        classes: `k`.
        channels: output channels of the first block; each further one has twice as many.
        dropout: probability before the classifier.
    """
    bands = inputs.layout == "bands"
    norm = BandNorm(inputs.shape[0]) if bands else nn.BatchNorm2d(inputs.shape[0])
    widths = [channels * 2**block for block in range(BLOCKS)]
    blocks = nn.Sequential()
    narrow = 1 if bands else inputs.shape[0]
    for block, width in enumerate(widths):
        if block:
            blocks.append(nn.AvgPool2d(2))
        blocks.extend([*_convolution(narrow, width), *_convolution(width, width)])
        narrow = width
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(narrow, classes))
    return Cnn2d(norm, blocks, classifier)


def _convolution(channels: int, width: int) -> list[nn.Module]:
    """A convolution that keeps height and width, batch norm and ReLU."""
    layer = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return [layer, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
