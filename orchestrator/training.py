"""Training of one model: without Ray, disk or audio; yields rows and prints nothing.

`Fit.run_epoch` is one pass over the training split and an evaluation; `Fit.result` the splits
at the epoch that `train.select` names. Every epoch seeds its generators anew, so that the state
of a fit is its weights, its optimizer, the epoch and the best epoch so far.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from features.arrays import FeatureArray
from orchestrator import metrics
from orchestrator.batches import ClipSet
from orchestrator.hyperparameters import TrainSpec
from orchestrator.optim import make_optimizer
from orchestrator.records import EpochRow, Predictions, SplitResult
from orchestrator.seeding import Seeds, epoch_seed, seed_everything


class NonFiniteLoss(ArithmeticError):  # noqa: N818
    """The loss is not a number or infinite: training has diverged."""


@dataclass(frozen=True)
class SplitData:
    """Rows of the feature array, each an int64 array `[n]`.

    Attributes:
        train: what the model learns from.
        val: what the epoch and the configuration are chosen by.
        test: what no choice sees; None without a test fold.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained and evaluated on.

    Attributes:
        features: float32 `[n, c, t]` of every clip, maybe read-only.
        labels: class indices, int64 `[n]`.
        split: which rows are for what.
        classes: `k`.
    """

    features: FeatureArray
    labels: NDArray[np.int64]
    split: SplitData
    classes: int


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


@dataclass(frozen=True)
class _Candidate:
    """The epoch that counts so far; `weights` only where a later epoch may not count."""

    epoch: int
    val: Evaluation
    test: Evaluation | None
    weights: dict[str, Any] | None


class Fit:
    """One model being trained.

    Attributes:
        model: on the device; after `result` it has the weights of the selected epoch.
        optimizer: over its trainable parameters.
        epoch: the next epoch, counted from 0.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        spec: TrainSpec,
        seeds: Seeds,
        device: torch.device,
    ) -> None:
        """Prepare the training.

        Args:
            model: maps `float32 [b, c, t]` to logits `[b, k]`; trained in place.
            data: features, labels and split.
            spec: how to train.
            seeds: of the order of the clips and of dropout.
            device: where to train.

        Raises:
            ValueError: an empty split, or a model without trainable parameters.
        """
        split = data.split
        for name, rows in (("train", split.train), ("val", split.val), ("test", split.test)):
            if rows is not None and not len(rows):
                raise ValueError(f"the {name} split has no clips")
        self.model = model.to(device)
        self.optimizer = make_optimizer(spec.optimizer, self.model.parameters())
        self.epoch = 0
        self._spec = spec
        self._seeds = seeds
        self._classes = data.classes
        self._train = ClipSet(data.features, data.labels, split.train, device)
        self._val = ClipSet(data.features, data.labels, split.val, device)
        self._test = (
            None if split.test is None else ClipSet(data.features, data.labels, split.test, device)
        )
        self._weights = self._class_weights(device)
        self._selected: _Candidate | None = None

    @property
    def finished(self) -> bool:
        """Whether every epoch has been run."""
        return self.epoch >= self._spec.epochs

    def run_epoch(self) -> EpochRow:
        """Train one epoch, then evaluate the validation split (and, if asked, the test split).

        `train_loss` is the mean per clip of the loss that is optimised, label smoothing and
        class weights included (weighted means of PyTorch's cross-entropy, batch by batch), while
        the weights change.

        Raises:
            NonFiniteLoss: training or validation loss is nan or infinite.
            ValueError: the model's output is not logits `[b, k]`.
        """
        lr = float(self.optimizer.param_groups[0]["lr"])
        train_loss, train_accuracy = self._train_epoch()
        self._check_loss("loss", train_loss, lr)
        val = evaluate(self.model, self._val, self._classes)
        self._check_loss("validation loss", val.loss, lr)
        test = None
        if self._test is not None and self._spec.test_every_epoch:
            test = evaluate(self.model, self._test, self._classes)
        self._select(val, test)
        row = EpochRow(
            epoch=self.epoch,
            lr=lr,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val.loss,
            val_accuracy=val.accuracy,
            test_loss=None if test is None else test.loss,
            test_accuracy=None if test is None else test.accuracy,
        )
        self.epoch += 1
        return row

    def result(self) -> tuple[int, SplitResult, SplitResult | None]:
        """The selected epoch, and the validation and test splits at that epoch.

        The test split is evaluated here, once, unless it was after that epoch.

        Raises:
            RuntimeError: no epoch has been run.
            NonFiniteLoss: the test loss is nan or infinite.
        """
        chosen = self._selected
        if chosen is None:
            raise RuntimeError("no epoch has been run")
        if chosen.weights is not None:
            self.model.load_state_dict(chosen.weights)
        val = split_result(chosen.val, self._val)
        if self._test is None:
            return chosen.epoch, val, None
        test = chosen.test or evaluate(self.model, self._test, self._classes)
        if not math.isfinite(test.loss):
            raise NonFiniteLoss(f"test loss is {test.loss} after epoch {chosen.epoch}")
        return chosen.epoch, val, split_result(test, self._test)

    def _train_epoch(self) -> tuple[float, float]:
        """One pass; loss and accuracy per clip, read from the device once at the end."""
        self.model.train()
        seed_everything(epoch_seed(self._seeds.dropout, self.epoch))
        device = self._train.labels.device
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        order = epoch_seed(self._seeds.order, self.epoch)
        for positions in self._train.shuffled(self._spec.batch_size, order):
            features, labels = self._train.batch(positions)
            batch_loss, logits = self._step(features, labels)
            loss += batch_loss.double() * len(positions)
            correct += (logits.argmax(dim=1) == labels).sum()
        clips = len(self._train)
        return loss.item() / clips, correct.item() / clips

    def _step(
        self, features: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One update; the batch's loss and logits before it, detached."""
        logits = forward(self.model, features, self._classes)
        loss = cross_entropy(
            logits, labels, weight=self._weights, label_smoothing=self._spec.label_smoothing
        )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.detach(), logits.detach()

    def _select(self, val: Evaluation, test: Evaluation | None) -> None:
        """Keep this epoch if it is the one that counts so far."""
        if self._spec.select == "last":
            self._selected = _Candidate(self.epoch, val, test, weights=None)
            return
        best = self._selected
        if best is None or (-val.accuracy, val.loss) < (-best.val.accuracy, best.val.loss):
            weights = copy.deepcopy(self.model.state_dict())
            self._selected = _Candidate(self.epoch, val, test, weights)

    def _class_weights(self, device: torch.device) -> torch.Tensor | None:
        """`n / (k * count)` for each class over the training split, or None."""
        if self._spec.class_weights == "none":
            return None
        counts = torch.bincount(self._train.labels.cpu(), minlength=self._classes)
        weights = len(self._train) / (self._classes * counts.clamp(min=1))
        return weights.to(torch.float32).to(device)

    def _check_loss(self, name: str, value: float, lr: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLoss(f"{name} is {value} in epoch {self.epoch} (lr {lr:g})")


def forward(model: nn.Module, features: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits float32 `[b, k]` of features `[b, c, t]`.

    Raises:
        ValueError: the model gives anything else.
    """
    logits = model(features)
    expected = f"expected [{len(features)}, {classes}]"
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"model gave {type(logits).__name__}, {expected}")
    if logits.shape != (len(features), classes):
        raise ValueError(f"model gave logits {list(logits.shape)}, {expected}")
    return logits.float()


def evaluate(model: nn.Module, clips: ClipSet, classes: int) -> Evaluation:
    """Run a model over a split in evaluation mode.

    Raises:
        ValueError: the model's output is not logits `[b, k]`.
    """
    model.eval()
    # Not inference mode: a user's model that keeps a tensor from here could train no further.
    with torch.no_grad():
        parts = [forward(model, clips.batch(p)[0], classes) for p in clips.ordered()]
    logits = torch.cat(parts).cpu()
    labels = clips.labels.cpu()
    losses = cross_entropy(logits.double(), labels, reduction="none")
    correct = (logits.argmax(dim=1) == labels).sum()
    return Evaluation(logits, losses.mean().item(), correct.item() / len(clips))


def split_result(evaluation: Evaluation, clips: ClipSet) -> SplitResult:
    """Scores and predictions; probabilities are the float64 softmax of the float32 logits."""
    probabilities = evaluation.logits.double().softmax(dim=1).numpy()
    predicted = evaluation.logits.argmax(dim=1).numpy()
    labels = clips.labels.cpu().numpy()
    return SplitResult(
        scores=metrics.score(labels, predicted, probabilities, evaluation.loss),
        predictions=Predictions(
            clips=tuple(clips.rows.tolist()),
            labels=tuple(labels.tolist()),
            predicted=tuple(predicted.tolist()),
            probabilities=tuple(map(tuple, probabilities.tolist())),
        ),
    )
