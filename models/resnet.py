"""`resnet34`: thirty-four layers in residual blocks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import relu

from models.picture import channels_together

__all__ = ["STAGES", "BasicBlock", "ResNet", "resnet34"]

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Channels and residual blocks of the four stages."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which a shortcut leads.

    The shortcut is the input itself; where the block halves height and width it is a 3x3
    convolution with stride 2 and batch norm.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_normed_convolution(channels, width, stride),
            nn.ReLU(inplace=True),
            *_normed_convolution(width, width, 1),
        )
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(*_normed_convolution(channels, width, stride))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map `[b, channels, h, w]` to `[b, width, h / stride, w / stride]`."""
        return relu(self.residual(maps) + self.shortcut(maps))


class ResNet(nn.Module):
    """A residual network with biases in all convolutions.

    K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning for image recognition, CVPR 2016.
    https://arxiv.org/abs/1512.03385
    """

    def __init__(self, picture: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.picture = picture
        width = STAGES[0][0]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 7, stride=2, padding=3),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.blocks = _blocks()
        self.classifier = nn.Linear(STAGES[-1][0], classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map a batch of features to logits `[b, k]`."""
        maps: torch.Tensor = self.blocks(self.stem(channels_together(self.picture(features))))
        logits: torch.Tensor = self.classifier(maps.mean(dim=(2, 3)))
        return logits


def resnet34(picture: nn.Module, channels: int, classes: int) -> ResNet:
    """The network of 34 layers, for pictures of 32 x 32 pixels and more.

    Args:
        picture: turns a batch of features into pictures.
        channels: of the pictures.
        classes: `k`.
    """
    return ResNet(picture, channels, classes)


def _blocks() -> nn.Sequential:
    """All residual blocks; each stage but the first begins with one that halves the map."""
    blocks = nn.Sequential()
    channels = STAGES[0][0]
    for width, count in STAGES:
        for _ in range(count):
            blocks.append(BasicBlock(channels, width, 1 if width == channels else 2))
            channels = width
    return blocks


def _normed_convolution(channels: int, width: int, stride: int) -> tuple[nn.Module, nn.Module]:
    layer = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
    return layer, nn.BatchNorm2d(width)
