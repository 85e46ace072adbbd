"""Training of one model: without Ray, disk or audio; yields rows and prints nothing.

`Fit.run_epoch` is one pass over the training split and an evaluation; `Fit.result` the splits
at the epoch that `train.select` names. Every epoch seeds its generators anew, so that the state
of a fit is its weights, its optimizer and schedule, the epoch and the best epoch so far: what
`Fit.state_dict` gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from features.arrays import FeatureArray
from features.augment import Augmenter
from orchestrator.batches import ClipSet
from orchestrator.compilation import compiled
from orchestrator.early_stopping import Improvement
from orchestrator.evaluation import Evaluation, evaluate, forward, split_result
from orchestrator.hyperparameters import PlateauSchedule, TrainSpec
from orchestrator.losses import Targets, TrainingLoss
from orchestrator.optim import make_optimizer
from orchestrator.records import EpochRow, SplitResult
from orchestrator.schedules import Schedule
from orchestrator.seeding import Seeds, batch_seed, epoch_seed, seed_everything
from orchestrator.selection import Candidate, Selection


class NonFiniteLoss(ArithmeticError):  # noqa: N818
    """The loss is not a number or infinite: training has diverged."""


@dataclass(frozen=True)
class SplitData:
    """Rows of the feature array, each an int64 array `[n]`.

    Attributes:
        train: what the model learns from.
        val: what the epoch and the configuration are chosen by; None to train without.
        test: what no choice sees; None without a test fold.
        twin: what validates the same training once more, for a trial of its own.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64] | None
    test: NDArray[np.int64] | None = None
    twin: NDArray[np.int64] | None = None


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


class Fit:
    """One model being trained.

    Attributes:
        model: on the device; after `result` it has the weights of the selected epoch.
        optimizer: over its trainable parameters.
        epoch: the next epoch, counted from 0.
        twin_row: the last epoch as `SplitData.twin` sees it; None without.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        spec: TrainSpec,
        seeds: Seeds,
        device: torch.device,
        augmenter: Augmenter | None = None,
        stop: int | None = None,
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
            stop: run so many epochs of `train.epochs` only; their schedule stays what it is.

        Raises:
            ValueError: an empty split, a model without trainable parameters, or no validation
                split where the learning rate follows it.
            CompilerMissing: `train.compile` where there is nothing to compile with.
        """
        split = data.split
        for name in ("train", "val", "test", "twin"):
            rows = getattr(split, name)
            if rows is not None and not len(rows):
                raise ValueError(f"the {name} split has no clips")
        if split.val is None and isinstance(spec.schedule, PlateauSchedule):
            raise ValueError("schedule plateau without a validation split")
        self.model = model.to(device)
        self.optimizer = make_optimizer(spec.optimizer, self.model)
        self._trained = compiled(self.model, device) if spec.compile else self.model
        self.epoch = 0
        self._spec = spec
        self._seeds = seeds
        self._classes = data.classes
        self._train = ClipSet(data.features, data.labels, split.train, device)
        val, self._test, twin = (
            None if rows is None else ClipSet(data.features, data.labels, rows, device)
            for rows in (split.val, split.test, split.twin)
        )
        self._loss = TrainingLoss(
            self._train.labels,
            data.classes,
            smoothing=spec.label_smoothing,
            class_weights=spec.class_weights,
        )
        self._augmenter = augmenter
        batches = self._train.batches(spec.batch_size)
        self._schedule = Schedule(spec.schedule, self.optimizer, spec.epochs, batches)
        self._improvement = Improvement(spec.early_stopping)
        self._epochs = spec.epochs if stop is None else min(stop, spec.epochs)
        self._selection = Selection(val, spec.select)
        self._twin = None if twin is None else Selection(twin, spec.select)
        self.twin_row: EpochRow | None = None

    @property
    def finished(self) -> bool:
        """Whether every epoch has been run, or `train.early_stopping` has ended them."""
        return self.epoch >= self._epochs or self._improvement.exhausted

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
        val = self._evaluate(self._selection.clips)
        if val is not None:
            self._check_loss("validation loss", val.loss, lr)
        test = self._evaluate(self._test) if self._spec.test_every_epoch else None
        row = EpochRow(
            epoch=self.epoch,
            lr=lr,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=None if val is None else val.loss,
            val_accuracy=None if val is None else val.accuracy,
            test_loss=None if test is None else test.loss,
            test_accuracy=None if test is None else test.accuracy,
        )
        self._selection.note(self.epoch, self.model, val, test)
        self.twin_row = self._run_twin(row)
        self._schedule.after_epoch(None if val is None else val.loss)
        if val is not None:
            self._improvement.note(val.loss, val.accuracy)
        self.epoch += 1
        return row

    def _run_twin(self, row: EpochRow) -> EpochRow | None:
        """The epoch as the second validation split sees it."""
        if self._twin is None:
            return None
        val = self._evaluate(self._twin.clips)
        assert val is not None
        if not math.isfinite(val.loss):
            # That split is no affair of this trial, and must not end it.
            self._twin = None
            return None
        self._twin.note(self.epoch, self.model, val, None)
        return replace(row, val_loss=val.loss, val_accuracy=val.accuracy)

    def result(self) -> tuple[int, SplitResult | None, SplitResult | None]:
        """The selected epoch, and the validation and test splits at that epoch.

        The test split is evaluated here, once, unless it was after that epoch.

        Raises:
            RuntimeError: no epoch has been run.
            NonFiniteLoss: the test loss is nan or infinite.
        """
        chosen = _chosen(self._selection)
        if chosen.weights is not None:
            self.model.load_state_dict(chosen.weights)
        val = _result(chosen.val, self._selection.clips)
        test = chosen.test or self._evaluate(self._test)
        if test is not None and not math.isfinite(test.loss):
            raise NonFiniteLoss(f"test loss is {test.loss} after epoch {chosen.epoch}")
        return chosen.epoch, val, _result(test, self._test)

    def twin_result(self) -> tuple[int, SplitResult | None] | None:
        """The epoch that the second validation split selects, and that split after it.

        None where there is no such split, or its loss has been nan or infinite.

        Raises:
            RuntimeError: no epoch has been run.
        """
        if self._twin is None:
            return None
        chosen = _chosen(self._twin)
        return chosen.epoch, _result(chosen.val, self._twin.clips)

    def twin_state_dict(self) -> dict[str, Any]:
        """The model's weights at the epoch that the second validation split selects.

        Raises:
            RuntimeError: no epoch has been run, or there is no such split.
        """
        if self._twin is None:
            raise RuntimeError("no second validation split")
        return _chosen(self._twin).weights or self.model.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """All that an equal fit needs to go on from here: tensors and plain values.

        No state of random generators, because each epoch seeds them from its number. A model
        that keeps more than its parameters and buffers gives it by `get_extra_state`.
        """
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "improvement": self._improvement.state_dict(),
            "selected": self._selection.state_dict(),
            "twin": None if self._twin is None else self._twin.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a fit of equal arguments was.

        Raises:
            RuntimeError, KeyError, TypeError, ValueError: the state is of another kind of fit;
                this one may have changed.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._improvement.load_state_dict(state["improvement"])
        self._selection.load_state_dict(state["selected"])
        if state["twin"] is None:
            self._twin = None
        elif self._twin is not None:
            self._twin.load_state_dict(state["twin"])
        self.epoch = state["epoch"]

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
            targets = Targets(labels, mixture)
            batch_loss, logits = self._step(features, targets)
            loss += batch_loss.double() * len(positions)
            correct += targets.hits(logits.argmax(dim=1))
        clips = len(self._train)
        return loss.item() / clips, correct.item() / clips

    def _step(self, features: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        """One update; the batch's loss and logits before it, detached."""
        output = forward(self._trained, features, self._classes, self._spec.precision)
        loss = self._loss(output, targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self._schedule.after_batch()
        return loss.detach(), output.logits.detach()

    def _evaluate(self, clips: ClipSet | None) -> Evaluation | None:
        if clips is None:
            return None
        return evaluate(self.model, clips, self._classes, self._spec.precision)

    def _check_loss(self, name: str, value: float, lr: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLoss(f"{name} is {value} in epoch {self.epoch} (lr {lr:g})")


def _chosen(selection: Selection) -> Candidate:
    if selection.chosen is None:
        raise RuntimeError("no epoch has been run")
    return selection.chosen


def _result(evaluation: Evaluation | None, clips: ClipSet | None) -> SplitResult | None:
    if evaluation is None or clips is None:
        return None
    return split_result(evaluation, clips)
