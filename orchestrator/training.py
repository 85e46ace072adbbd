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
from features.augment import Augmenter, Mixture
from models.outputs import AuxiliaryLogits
from orchestrator import metrics
from orchestrator.batches import ClipSet
from orchestrator.hyperparameters import EarlyStoppingSpec, TrainSpec
from orchestrator.optim import make_optimizer
from orchestrator.records import EpochRow, Predictions, SplitResult
from orchestrator.schedules import Schedule
from orchestrator.seeding import Seeds, batch_seed, epoch_seed, seed_everything


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
        features: of every clip, maybe read-only.
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


@dataclass(frozen=True)
class _Targets:
    """The labels of a batch, `[b]`, and what was mixed into its clips."""

    labels: torch.Tensor
    mixture: Mixture | None

    def parts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Labels with their shares in each clip, which add up to 1."""
        if self.mixture is None:
            return [(self.labels, torch.ones_like(self.labels, dtype=torch.float32))]
        share = self.mixture.share
        return [(self.labels, share), (self.labels[self.mixture.partner], 1 - share)]

    def hits(self, predicted: torch.Tensor) -> torch.Tensor:
        """How many predictions are right, by the share of the predicted label."""
        right = [((predicted == labels) * share).sum() for labels, share in self.parts()]
        return torch.stack(right).sum()


@dataclass
class _Progress:
    """The best value so far of what `train.early_stopping` watches, and the epochs since."""

    spec: EarlyStoppingSpec | None
    best: float = -math.inf
    stale: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether the patience has run out."""
        return self.spec is not None and self.stale >= self.spec.patience

    def note(self, val: Evaluation) -> None:
        """Take in one epoch; a value that only equals the best is none better."""
        if self.spec is None:
            return
        value = val.accuracy if self.spec.metric == "val_accuracy" else -val.loss
        if value > self.best + self.spec.min_delta:
            self.best, self.stale = value, 0
        else:
            self.stale += 1


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
        augmenter: Augmenter | None = None,
    ) -> None:
        """Prepare the training.

        Args:
            model: maps features as `ClipSet.batch` gives them to logits `[b, k]`; trained in
                place. In training mode it may give AuxiliaryLogits.
            data: features, labels and split.
            spec: how to train.
            seeds: of the order of the clips, of dropout and of the augmentation.
            device: where to train.
            augmenter: changes the training clips.

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
        self._augmenter = augmenter
        batches = self._train.batches(spec.batch_size)
        self._schedule = Schedule(spec.schedule, self.optimizer, spec.epochs, batches)
        self._progress = _Progress(spec.early_stopping)
        self._selected: _Candidate | None = None

    @property
    def finished(self) -> bool:
        """Whether every epoch has been run, or `train.early_stopping` has ended them."""
        return self.epoch >= self._spec.epochs or self._progress.exhausted

    def run_epoch(self) -> EpochRow:
        """Train one epoch, then evaluate the validation split (and, if asked, the test split).

        `train_loss` is the mean per clip of the loss that is optimised, label smoothing and
        class weights, mixed labels and auxiliary classifiers included (weighted means of
        PyTorch's cross-entropy, batch by batch), while the weights change. A clip that was mixed
        counts for `train_accuracy` with the share of the label that was predicted.

        Raises:
            NonFiniteLoss: training or validation loss is nan or infinite.
            ValueError: the model's output is not logits `[b, k]`.
        """
        lr = float(self.optimizer.param_groups[0]["lr"])
        train_loss, train_accuracy = self._train_epoch()
        self._check_loss("loss", train_loss, lr)
        val = self._evaluate(self._val)
        self._check_loss("validation loss", val.loss, lr)
        test = None
        if self._test is not None and self._spec.test_every_epoch:
            test = self._evaluate(self._test)
        self._select(val, test)
        self._schedule.after_epoch(val.loss)
        self._progress.note(val)
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
        test = chosen.test or self._evaluate(self._test)
        if not math.isfinite(test.loss):
            raise NonFiniteLoss(f"test loss is {test.loss} after epoch {chosen.epoch}")
        return chosen.epoch, val, split_result(test, self._test)

    def _train_epoch(self) -> tuple[float, float]:
        """One pass; loss and accuracy per clip, read from the device once at the end."""
        self.model.train()
        seed_everything(epoch_seed(self._seeds.dropout, self.epoch))
        device = self._train.labels.device
        loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.float64, device=device)
        order = epoch_seed(self._seeds.order, self.epoch)
        for i, positions in enumerate(self._train.shuffled(self._spec.batch_size, order)):
            features, labels = self._train.batch(positions)
            mixture = None
            if self._augmenter is not None:
                seed = batch_seed(self._seeds.augmentation, self.epoch, i)
                features, mixture = self._augmenter(features, seed)
            targets = _Targets(labels, mixture)
            batch_loss, logits = self._step(features, targets)
            loss += batch_loss.double() * len(positions)
            correct += targets.hits(logits.argmax(dim=1))
        clips = len(self._train)
        return loss.item() / clips, correct.item() / clips

    def _step(self, features: torch.Tensor, targets: _Targets) -> tuple[torch.Tensor, torch.Tensor]:
        """One update; the batch's loss and logits before it, detached."""
        output = forward(self.model, features, self._classes, self._spec.precision)
        loss = self._loss(output.logits, targets)
        for auxiliary in output.auxiliary:
            loss = loss + output.weight * self._loss(auxiliary, targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self._schedule.after_batch()
        return loss.detach(), output.logits.detach()

    def _loss(self, logits: torch.Tensor, targets: _Targets) -> torch.Tensor:
        """Mean cross-entropy of a batch, by class weights and shares of labels."""
        smoothing, weight = self._spec.label_smoothing, self._weights
        if targets.mixture is None:
            return cross_entropy(logits, targets.labels, weight=weight, label_smoothing=smoothing)
        total = torch.zeros((), device=logits.device)
        mass = torch.zeros((), device=logits.device)
        for labels, share in targets.parts():
            each = cross_entropy(
                logits, labels, weight=weight, label_smoothing=smoothing, reduction="none"
            )
            total = total + (share * each).sum()
            mass = mass + (share if weight is None else share * weight[labels]).sum()
        return total / mass

    def _evaluate(self, clips: ClipSet) -> Evaluation:
        return evaluate(self.model, clips, self._classes, self._spec.precision)

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
    model.eval()
    # Not inference mode: a user's model that keeps a tensor from here could train no further.
    with torch.no_grad():
        parts = [
            forward(model, clips.batch(p)[0], classes, precision).logits for p in clips.ordered()
        ]
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
