"""`cnn2d`: small networks of 3x3 convolutions side by side, for spectrograms and little data."""

from __future__ import annotations

import torch
from torch import nn

from models.outputs import AuxiliaryLogits
from models.picture import channels_together
from models.spec import InputSpec

__all__ = ["BLOCKS", "Branch", "Cnn2d", "Heard", "cnn2d"]

BLOCKS = 4
"""Blocks of two convolutions."""

_POOLS = (2, 2, 2, 1)
"""By what each block divides height and width, after the first convolution has halved them."""


class Heard(nn.Module):
    """What a branch sees of a spectrogram: pictures of one channel or several.

    Each band is normalised over the batch by itself, or each channel of an image. The branches
    of one network differ in what they see, so that they err on different clips:

    0. the normalised bands;
    1. the same without each clip's mean level;
    2. the normalised bands, their change from frame to frame, and each band's own height, as the
       frequency-aware convolutions of Koutini et al. 2019 (https://arxiv.org/abs/1909.02859).

    Further ones begin again at 0.
    """

    height: torch.Tensor

    def __init__(self, inputs: InputSpec, view: int) -> None:
        super().__init__()
        self.bands = inputs.layout == "bands"
        self.view = view % 3
        rows = inputs.shape[0] if self.bands else inputs.shape[1]
        self.norm: nn.Module = (
            nn.BatchNorm1d(inputs.shape[0]) if self.bands else nn.BatchNorm2d(inputs.shape[0])
        )
        height = torch.linspace(-1, 1, rows).view(1, 1, -1, 1)
        self.register_buffer("height", height, persistent=False)
        self.channels = (1 if self.bands else inputs.shape[0]) * (2 if self.view == 2 else 1)
        self.channels += self.view == 2

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `[b, bands, t]` or `[b, c, h, w]` to `[b, channels, h, w]`."""
        if self.view == 1:
            axes = tuple(range(1, features.dim()))
            features = features - features.mean(dim=axes, keepdim=True)
        normed: torch.Tensor = self.norm(features)
        maps = normed.unsqueeze(1) if self.bands else normed
        if self.view != 2:
            return maps
        change = nn.functional.pad(maps[..., 2:] - maps[..., :-2], (1, 1))
        height = self.height.expand(len(maps), 1, -1, maps.shape[-1])
        return torch.cat([maps, change, height], dim=1)


class Branch(nn.Module):
    """One convolutional network, the smallest of PANNs made smaller.

    Q. Kong, Y. Cao, T. Iqbal, Y. Wang, W. Wang, M. D. Plumbley: PANNs: Large-scale pretrained
    audio neural networks for audio pattern recognition, IEEE/ACM TASLP 28, 2020.
    https://arxiv.org/abs/1912.10211
    Its blocks after Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556.
    """

    def __init__(self, heard: Heard, blocks: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.heard = heard
        self.blocks = blocks
        self.classifier = classifier

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `[b, bands, t]` or `[b, c, h, w]` to logits `[b, k]`."""
        maps: torch.Tensor = self.blocks(channels_together(self.heard(features)))
        steps = maps.mean(dim=2)
        # The mean hears what lasts, the maximum what happens once.
        heard = torch.cat([steps.mean(dim=-1), steps.amax(dim=-1)], dim=1)
        logits: torch.Tensor = self.classifier(heard)
        return logits


class Cnn2d(nn.Module):
    """Branches that are trained side by side, each by a loss of its own, and answer together.

    In evaluation the logits are the mean of the branches': an ensemble (Hansen and Salamon 1990)
    that costs one training.
    """

    def __init__(self, branches: nn.ModuleList) -> None:
        super().__init__()
        self.branches = branches

    def forward(self, features: torch.Tensor) -> torch.Tensor | AuxiliaryLogits:
        """Map `[b, bands, t]` or `[b, c, h, w]` to logits `[b, k]`."""
        logits = [branch(features) for branch in self.branches]
        if self.training:
            return AuxiliaryLogits(logits[0], tuple(logits[1:]), weight=1.0)
        return torch.stack(logits).mean(dim=0)


def cnn2d(
    inputs: InputSpec, classes: int, *, channels: int, branches: int, dropout: float
) -> Cnn2d:
    """Branches of a 5x5 convolution and four blocks, pooled over frequency and time.

    Args:
        inputs: of layout `bands` or `image`.
        classes: `k`.
        channels: output channels of the first block; each further one has twice as many.
        branches: networks side by side.
        dropout: probability before the classifier.
    """
    return Cnn2d(
        nn.ModuleList(
            _branch(Heard(inputs, view), classes, channels, dropout) for view in range(branches)
        )
    )


def _branch(heard: Heard, classes: int, channels: int, dropout: float) -> Branch:
    blocks = nn.Sequential(*_convolution(heard.channels, channels, size=5, stride=2))
    narrow = channels
    for block, pool in enumerate(_POOLS):
        width = channels * 2**block
        blocks.extend([*_convolution(narrow, width), *_convolution(width, width)])
        if pool > 1:
            blocks.append(nn.AvgPool2d(pool))
        narrow = width
    classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * narrow, classes))
    return Branch(heard, blocks, classifier)


def _convolution(channels: int, width: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps height and width but for its stride, batch norm and ReLU."""
    layer = nn.Conv2d(channels, width, size, stride=stride, padding=size // 2, bias=False)
    return [layer, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
