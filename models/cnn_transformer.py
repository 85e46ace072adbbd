"""`cnn_transformer`: the blocks of `cnn1d`, their time steps encoded by a transformer."""

from __future__ import annotations

import math

import torch
from torch import nn

from models.cnn1d import conv_blocks
from models.spec import WIDTH, Layout

__all__ = ["FEED_FORWARD", "CnnTransformer", "cnn_transformer", "sinusoidal_positions"]

FEED_FORWARD = 256
"""Width of the hidden layer between the attention blocks."""


class CnnTransformer(nn.Module):
    """Convolutional blocks as tokens, a learned class token before them, a transformer encoder.

    The class token follows Devlin et al. 2019 (https://arxiv.org/abs/1810.04805), the encoder
    and its positions Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762).
    """

    def __init__(self, blocks: nn.Module, encoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.cls = nn.Parameter(torch.zeros(WIDTH))
        self.encoder = encoder
        self.classifier = classifier

    def tokens(self, features: torch.Tensor) -> torch.Tensor:
        """Map `[b, c, t]` to `[b, s, 512]`: the blocks' time steps, without the class token."""
        steps: torch.Tensor = self.blocks(features)
        return steps.transpose(1, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `[b, c, t]` to logits `[b, k]`."""
        steps = self.tokens(features)
        tokens = torch.cat([self.cls.expand(steps.shape[0], 1, -1), steps], dim=1)
        encoded: torch.Tensor = self.encoder(tokens + sinusoidal_positions(tokens))
        logits: torch.Tensor = self.classifier(encoded[:, 0])
        return logits


def sinusoidal_positions(tokens: torch.Tensor) -> torch.Tensor:
    """Positions of Vaswani et al. 2017, section 3.5, for tokens `[b, s, width]`.

    Returns:
        `[s, width]` of the tokens' type and device: the sine of
        `position / 10000^(2i / width)` in column `2i`, its cosine in column `2i + 1`.
    """
    _, length, width = tokens.shape
    position = torch.arange(length, dtype=torch.float32, device=tokens.device)
    even = torch.arange(0, width, 2, dtype=torch.float32, device=tokens.device)
    angle = position[:, None] * torch.exp(even * (-math.log(10_000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(tokens.dtype)


def cnn_transformer(
    channels: int, classes: int, layout: Layout, *, heads: int, layers: int, dropout: float
) -> CnnTransformer:
    """The blocks of `cnn1d`, a post-norm encoder and a linear classifier on the class token.

    Args:
        channels: input channels `c`.
        classes: `k`.
        layout: what the channels are.
        heads: attention heads; divides 512.
        layers: encoder layers. PyTorch starts them as copies of one another.
        dropout: probability in the encoder.
    """
    blocks = conv_blocks(channels, layout)
    layer = nn.TransformerEncoderLayer(
        WIDTH, heads, FEED_FORWARD, dropout, activation="relu", batch_first=True, norm_first=False
    )
    encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    return CnnTransformer(blocks, encoder, nn.Linear(WIDTH, classes))
