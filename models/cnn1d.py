"""`cnn1d`: four blocks of one-dimensional convolution, shared with `cnn_transformer`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import conv2d

from models.spec import Layout

__all__ = [
    "BLOCK_CHANNELS",
    "Cnn1d",
    "ConvBlocks",
    "PatchConv1d",
    "RowConv1d",
    "cnn1d",
    "conv_blocks",
]

BLOCK_CHANNELS = (128, 128, 256, 512)
"""Output channels of the four blocks."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Time steps that the blocks look at: the first kernel, its stride, and each block's pool."""

    kernel: int
    stride: int
    pool: int


_SCALES: dict[Layout, _Scale] = {
    "samples": _Scale(kernel=80, stride=16, pool=4),
    "bands": _Scale(kernel=9, stride=1, pool=2),
}


class RowConv1d(nn.Conv1d):
    """`nn.Conv1d` on maps of one row, `[b, c, 1, t]`, for memory in which channels lie together.

    PyTorch has that layout for maps of two dimensions only, and there convolution, batch norm and
    pool are up to thirty times as fast on a CPU as on `[b, c, t]`. Parameters are those of
    `nn.Conv1d`, results equal up to rounding.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map `[b, c, 1, t]` to `[b, out, 1, s]`."""
        weight = self.weight.unsqueeze(2)
        return conv2d(input, weight, self.bias, (1, self.stride[0]), (0, int(self.padding[0])))


class PatchConv1d(nn.Conv1d):
    """A convolution on maps of one row without padding, whose stride divides its kernel.

    A signal of `c` channels read with stride `s` is the same signal of `c * s` channels and
    `t / s` steps read with stride 1. With few channels and a long kernel that is two to three
    times as fast on a CPU; parameters are those of `nn.Conv1d`, results equal up to rounding.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        if kernel % stride:
            raise ValueError(f"stride must divide kernel, but got {kernel=}, {stride=}")
        super().__init__(in_channels, out_channels, kernel, stride)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map `[b, c, 1, t]` to `[b, out, 1, (t - kernel) // stride + 1]`."""
        (stride,) = self.stride
        rows = _patches(input.squeeze(2), stride)
        weight = _patches(self.weight, stride)
        return conv2d(rows, weight, self.bias)


def _patches(values: torch.Tensor, size: int) -> torch.Tensor:
    """Map `[b, c, t]` to `[b, c * size, 1, t // size]`, channels together in memory.

    A rest shorter than a patch is left out.
    """
    rows, channels, steps = values.shape
    count = steps // size
    grouped = values[..., : count * size].reshape(rows, channels, count, size)
    together = grouped.transpose(1, 2).reshape(rows, 1, count, channels * size)
    return together.permute(0, 3, 1, 2)


class ConvBlocks(nn.Sequential):
    """Blocks of convolution, batch norm, max-pool and ReLU along time.

    The pool comes before the ReLU, which then has less to do: the larger of two values is
    positive or not whether it is taken before or after.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map `[b, c, t]` to `[b, 512, s]`."""
        maps = input.unsqueeze(2)
        for layer in self:
            maps = layer(maps)
        return maps.squeeze(2)


def conv_blocks(channels: int, layout: Layout) -> ConvBlocks:
    """Four blocks of convolution, batch norm, max-pool and ReLU.

    Args:
        channels: windows of a waveform (`samples`) or bands of a spectrogram (`bands`).
        layout: sets the first kernel, its stride and the pools.

    Returns:
        A module from `[b, channels, t]` to `[b, 512, s]`; `s` is at least 1 from 4160 samples or
        24 frames on.
    """
    scale = _SCALES[layout]
    first: nn.Conv1d = PatchConv1d(channels, BLOCK_CHANNELS[0], scale.kernel, scale.stride)
    layers: list[nn.Module] = _block(first, scale.pool)
    for narrow, wide in pairwise(BLOCK_CHANNELS):
        layers += _block(RowConv1d(narrow, wide, kernel_size=3, padding=1), scale.pool)
    return ConvBlocks(*layers)


def _block(convolution: nn.Conv1d, pool: int) -> list[nn.Module]:
    norm = nn.BatchNorm2d(convolution.out_channels)
    return [convolution, norm, nn.MaxPool2d((1, pool)), nn.ReLU(inplace=True)]


class Cnn1d(nn.Module):
    """The M5 network of Dai et al. 2017 with windows or bands as channels.

    W. Dai, C. Dai, S. Qu, J. Li, S. Das: Very deep convolutional neural networks for raw
    waveforms, ICASSP 2017. https://arxiv.org/abs/1610.00087
    """

    def __init__(self, blocks: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.classifier = classifier

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `[b, c, t]` to logits `[b, k]`."""
        steps: torch.Tensor = self.blocks(features)
        logits: torch.Tensor = self.classifier(steps.mean(dim=-1))
        return logits


def cnn1d(channels: int, classes: int, layout: Layout) -> Cnn1d:
    """Four blocks, global average pooling and a linear classifier.

    Args:
        channels: input channels `c`.
        classes: `k`.
        layout: what the channels are.
    """
    blocks = conv_blocks(channels, layout)
    return Cnn1d(blocks, nn.Linear(BLOCK_CHANNELS[-1], classes))
