"""`googlenet`: the first Inception network, with its two auxiliary classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, max_pool2d

from models.outputs import AuxiliaryLogits
from models.picture import channels_together

__all__ = ["AUXILIARY_WEIGHT", "GoogLeNet", "four_by_four", "googlenet"]

AUXILIARY_WEIGHT = 0.3
"""Of each auxiliary loss (section 5 of the paper)."""

_AUXILIARY_SIDE = 4
"""Height and width of the map that an auxiliary classifier reads."""


@dataclass(frozen=True, slots=True)
class _Widths:
    """Output channels of an inception block's layers, as table 1 of the paper names them."""

    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pool: int

    @property
    def total(self) -> int:
        """Channels of the block's output."""
        return self.one + self.three + self.five + self.pool


_THREE = (_Widths(64, 96, 128, 16, 32, 32), _Widths(128, 128, 192, 32, 96, 64))
_FOUR = (
    _Widths(192, 96, 208, 16, 48, 64),
    _Widths(160, 112, 224, 24, 64, 64),
    _Widths(128, 128, 256, 24, 64, 64),
    _Widths(112, 144, 288, 32, 64, 64),
    _Widths(256, 160, 320, 32, 128, 128),
)
_FIVE = (_Widths(256, 160, 320, 32, 128, 128), _Widths(384, 192, 384, 48, 128, 128))
_READ = (0, 3)
"""Blocks of the fourth stage whose output an auxiliary classifier reads: 4a and 4d."""


class Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3 and 5x5 convolutions and a pool."""

    def __init__(self, channels: int, widths: _Widths) -> None:
        super().__init__()
        self.one = _convolution(channels, widths.one, 1)
        self.three = nn.Sequential(
            _convolution(channels, widths.reduce_three, 1),
            _convolution(widths.reduce_three, widths.three, 3),
        )
        self.five = nn.Sequential(
            _convolution(channels, widths.reduce_five, 1),
            _convolution(widths.reduce_five, widths.five, 5),
        )
        self.pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), _convolution(channels, widths.pool, 1)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map `[b, channels, h, w]` to `[b, widths.total, h, w]`."""
        branches = [self.one(maps), self.three(maps), self.five(maps), self.pool(maps)]
        return torch.cat(branches, dim=1)


class AuxiliaryClassifier(nn.Module):
    """A small classifier on a map half way, which brings the lower layers a gradient."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.reduce = _convolution(channels, 128, 1)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * _AUXILIARY_SIDE**2, 1024),
            nn.ReLU(inplace=True),
            nn.Dropout(0.7),
            nn.Linear(1024, classes),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map `[b, channels, h, w]` to logits `[b, k]`."""
        logits: torch.Tensor = self.classifier(self.reduce(four_by_four(maps)))
        return logits


class GoogLeNet(nn.Module):
    """GoogLeNet (Inception v1) with batch norm in place of local response normalisation.

    C. Szegedy, W. Liu, Y. Jia, P. Sermanet, S. Reed, D. Anguelov, D. Erhan, V. Vanhoucke,
    A. Rabinovich: Going deeper with convolutions, CVPR 2015. https://arxiv.org/abs/1409.4842
    The stem's 3x3 convolution reads the 64 maps of the first pool without a 1x1 one between.
    """

    def __init__(self, picture: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.picture = picture
        self.stem = _stem(channels)
        self.three = _stage(192, _THREE)
        self.four = _stage(_THREE[-1].total, _FOUR)
        self.five = _stage(_FOUR[-1].total, _FIVE)
        self.auxiliary = nn.ModuleList(
            AuxiliaryClassifier(_FOUR[block].total, classes) for block in _READ
        )
        self.dropout = nn.Dropout(0.4)
        self.classifier = nn.Linear(_FIVE[-1].total, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor | AuxiliaryLogits:
        """Map a batch of features to logits `[b, k]`, in training with the auxiliary ones."""
        maps = _halved(self.three(self.stem(channels_together(self.picture(features)))))
        read = []
        for block in self.four:
            maps = block(maps)
            read.append(maps)
        maps = self.five(_halved(maps))
        logits: torch.Tensor = self.classifier(self.dropout(maps.mean(dim=(2, 3))))
        if not self.training:
            return logits
        heads = zip(self.auxiliary, _READ, strict=True)
        auxiliary = tuple(head(read[block]) for head, block in heads)
        return AuxiliaryLogits(logits, auxiliary, AUXILIARY_WEIGHT)


def googlenet(picture: nn.Module, channels: int, classes: int) -> GoogLeNet:
    """GoogLeNet for pictures of 32 x 32 pixels and more.

    Args:
        picture: turns a batch of features into pictures.
        channels: of the pictures.
        classes: `k`.
    """
    return GoogLeNet(picture, channels, classes)


def _convolution(channels: int, width: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps height and width, and its ReLU."""
    layer = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
    return nn.Sequential(layer, nn.ReLU(inplace=True))


def _stem(channels: int) -> nn.Sequential:
    """Two convolutions and two pools: `[b, channels, h, w]` to `[b, 192, h / 8, w / 8]`."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 7, stride=2, padding=3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.BatchNorm2d(64),
        _convolution(64, 192, 3),
        nn.BatchNorm2d(192),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
    )


def _stage(channels: int, blocks: tuple[_Widths, ...]) -> nn.Sequential:
    stage = nn.Sequential()
    for widths in blocks:
        stage.append(Inception(channels, widths))
        channels = widths.total
    return stage


def _halved(maps: torch.Tensor) -> torch.Tensor:
    """The pool between two stages."""
    return max_pool2d(maps, 3, stride=2, ceil_mode=True)


def four_by_four(maps: torch.Tensor) -> torch.Tensor:
    """Average a map to 4 x 4: 5 x 5 with stride 3 on the paper's 14 x 14, adaptive elsewhere."""
    height, width = maps.shape[-2:]
    if (height, width) == (14, 14):
        return avg_pool2d(maps, 5, stride=3)
    # As products, since PyTorch's adaptive average has no deterministic gradient on a GPU.
    return _shares(height).to(maps) @ maps @ _shares(width).to(maps).T


def _shares(size: int) -> torch.Tensor:
    """`[4, size]`: row i averages the pixels that the i-th quarter touches, even in part."""
    quarter = torch.arange(_AUXILIARY_SIDE)[:, None]
    pixel = torch.arange(size)
    starts, ends = pixel * _AUXILIARY_SIDE, (pixel + 1) * _AUXILIARY_SIDE
    touched = (starts < (quarter + 1) * size) & (ends > quarter * size)
    return touched / touched.sum(dim=1, keepdim=True)
