"""A model's answers on one split: logits, loss, accuracy, and what is recorded of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from models.outputs import AuxiliaryLogits
from orchestrator import metrics
from orchestrator.batches import ClipSet
from orchestrator.records import Predictions, SplitResult


@dataclass(frozen=True)
class Evaluation:
    """A model's answers on one split.

    Attributes:
        logits: float32 `[n, k]`, on the CPU.
        loss: mean cross-entropy per clip, natural logarithm, without smoothing or weights.
        accuracy: fraction of clips whose largest logit is the label's.
    """

    logits: torch.Tensor
    loss: float
    accuracy: float


def forward(
    model: nn.Module, features: torch.Tensor, classes: int, precision: str = "float32"
) -> AuxiliaryLogits:
    """Logits float32 `[b, k]` of a batch, with auxiliary ones where the model gives them.

    Raises:
        ValueError: the model gives anything else.
    """
    mixed = precision == "bf16"
    with torch.autocast(features.device.type, dtype=torch.bfloat16, enabled=mixed):
        output = model(features)
    if not isinstance(output, AuxiliaryLogits):
        output = AuxiliaryLogits(output, ())
    logits, *auxiliary = (
        _checked(part, len(features), classes) for part in (output.logits, *output.auxiliary)
    )
    return AuxiliaryLogits(logits, tuple(auxiliary), output.weight)


def _checked(logits: Any, clips: int, classes: int) -> torch.Tensor:
    expected = f"expected [{clips}, {classes}]"
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"model gave {type(logits).__name__}, {expected}")
    if logits.shape != (clips, classes):
        raise ValueError(f"model gave logits {list(logits.shape)}, {expected}")
    return logits.float()


def evaluate(
    model: nn.Module, clips: ClipSet, classes: int, precision: str = "float32"
) -> Evaluation:
    """Run a model over a split in evaluation mode.

    Raises:
        ValueError: the model's output is not logits `[b, k]`.
    """
    logits = answers(model, clips, classes, precision)
    labels = clips.labels.cpu()
    losses = cross_entropy(logits.double(), labels, reduction="none")
    correct = (logits.argmax(dim=1) == labels).sum()
    return Evaluation(logits, losses.mean().item(), correct.item() / len(clips))


def answers(
    model: nn.Module, clips: ClipSet, classes: int, precision: str = "float32"
) -> torch.Tensor:
    """Logits float32 `[n, k]` of clips in their order, on the CPU; their labels do not count.

    Raises:
        ValueError: the model's output is not logits `[b, k]`.
    """
    model.eval()
    # Into one tensor: small ones that stay would part the memory that batches come and go in,
    # and a worker would come to hold as much as the whole split.
    found = torch.empty(len(clips), classes, device=clips.labels.device)
    # Not inference mode: a user's model that keeps a tensor from here could train no further.
    with torch.no_grad():
        for positions in clips.ordered():
            batch, _ = clips.batch(positions)
            found[positions] = forward(model, batch, classes, precision).logits
    return found.cpu()


def probabilities_of(logits: torch.Tensor) -> NDArray[np.float64]:
    """The float64 softmax of float32 logits `[n, k]`."""
    probabilities: NDArray[np.float64] = logits.double().softmax(dim=1).numpy()
    return probabilities


def split_result(evaluation: Evaluation, clips: ClipSet) -> SplitResult:
    """Scores and predictions."""
    probabilities = probabilities_of(evaluation.logits)
    predicted = evaluation.logits.argmax(dim=1).numpy()
    labels = clips.labels.cpu().numpy()
    return recorded(clips.rows, labels, predicted, probabilities, evaluation.loss)


def recorded(
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    loss: float,
) -> SplitResult:
    """Scores and predictions as they are recorded.

    Args:
        rows: of the split in the feature array, `[n]`.
        labels: true class indices `[n]`.
        predicted: predicted ones `[n]`.
        probabilities: `[n, k]`, each row sums to 1.
        loss: mean per clip.
    """
    return SplitResult(
        scores=metrics.score(labels, predicted, probabilities, loss),
        predictions=Predictions(
            clips=tuple(rows.tolist()),
            labels=tuple(labels.tolist()),
            predicted=tuple(predicted.tolist()),
            probabilities=tuple(map(tuple, probabilities.tolist())),
        ),
    )
