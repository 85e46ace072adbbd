"""Records: the rows that a trial produces, and their JSON form on disk.

Everything here is plain data: no torch, no ray. Accuracies, precision, recall, F1 and AUROC are
fractions in 0..1, losses are means per clip, times are seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from orchestrator.weights_names import NETWORK_WEIGHTS


class Status(StrEnum):
    """Where a trial of the plan stands."""

    PENDING = "pending"
    """Not finished yet, or never started."""
    FINISHED = "finished"
    """Ran to its last epoch; its record counts and is never computed again."""
    FAILED = "failed"
    """Ended with an error; runs again when the sweep is continued."""
    PRUNED = "pruned"
    """Stopped early by comparison with others."""


class Cause(StrEnum):
    """Why an attempt at a trial ended without a record."""

    OWN = "own"
    """It raised: an equal input would raise again."""
    DIED = "died"
    """Its process was killed or crashed."""
    MEMORY = "memory"
    """The machine's memory ran out."""
    GPU_MEMORY = "gpu memory"
    """The memory of its GPU, or of its share of one, ran out."""
    TIMEOUT = "timeout"
    """It took longer than `execution.trial_timeout`."""
    LOST = "lost"
    """Its node died, which is no fault of the trial."""


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch of one trial.

    Attributes:
        epoch: counted from 0.
        lr: learning rate of the epoch's first step; None for what is fitted in one go.
        train_loss: mean per clip over the epoch, in training mode, while the weights change; for
            what is fitted in one go, afterwards.
        train_accuracy: likewise a running value.
        val_loss: over the whole validation split after the epoch; None without one.
        val_accuracy: likewise.
        test_loss: None unless `train.test_every_epoch`.
        test_accuracy: likewise.
    """

    epoch: int
    lr: float | None
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None = None
    test_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Metrics over all clips of one split; macro averages unless named weighted.

    `auroc` is the macro one-versus-rest area, None where a class is absent from the split.
    """

    accuracy: float
    loss: float
    precision: float
    recall: float
    f1: float
    auroc: float | None
    precision_weighted: float
    recall_weighted: float
    f1_weighted: float


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's answers on one split.

    Attributes:
        clips: row indices into the feature array, `n` of them.
        labels: true class indices, `n`.
        predicted: predicted class indices, `n`.
        probabilities: `[n][k]`, each row sums to 1.
    """

    clips: tuple[int, ...]
    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    probabilities: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class SplitResult:
    """Scores and predictions of one split at the epoch that `train.select` names."""

    scores: Scores
    predictions: Predictions

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {"scores": _values(self.scores), "predictions": _values(self.predictions)}


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of a model's parameters."""

    total: int
    trainable: int

    @property
    def non_trainable(self) -> int:
        """Frozen parameters."""
        return self.total - self.trainable


@dataclass(frozen=True, slots=True)
class Timing:
    """When, where and how long; the only part of a record that differs between equal runs.

    Attributes:
        started: UTC, ISO 8601.
        wall_seconds: from the trial's start to its record, in the worker.
        train_seconds: building the model, training and evaluating it.
        attempts: how often the trial was started, this time included.
        host: name of the machine.
        device: `cpu` or the name of the GPU.
    """

    started: str
    wall_seconds: float
    train_seconds: float
    attempts: int
    host: str
    device: str


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A finished trial.

    Attributes:
        trial: its identity.
        epoch: the epoch whose metrics and predictions count.
        epochs: every epoch in order.
        val: the validation split at `epoch`; None without a validation fold.
        test: the test split at `epoch`; None without a test fold.
        parameters: of the model; None for an estimator, whose size is what it was fitted to.
        timing: when and where.
        twin: what the same training gave another trial, which validates on other clips; on its
            way to a file of its own, not part of this record's.
    """

    trial: str
    epoch: int
    epochs: tuple[EpochRow, ...]
    val: SplitResult | None
    test: SplitResult | None
    parameters: ParameterCount | None
    timing: Timing
    twin: TrialRecord | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values; `from_json` reads it back equal."""
        return {
            "trial": self.trial,
            "epoch": self.epoch,
            "epochs": [_values(row) for row in self.epochs],
            "val": None if self.val is None else self.val.to_json(),
            "test": None if self.test is None else self.test.to_json(),
            "parameters": None if self.parameters is None else _values(self.parameters),
            "timing": _values(self.timing),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrialRecord:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: a field is missing, unknown or of the wrong form.
        """
        parameters = data["parameters"]
        return cls(
            trial=data["trial"],
            epoch=data["epoch"],
            epochs=tuple(EpochRow(**row) for row in data["epochs"]),
            val=None if data["val"] is None else _split_result(data["val"]),
            test=None if data["test"] is None else _split_result(data["test"]),
            parameters=None if parameters is None else ParameterCount(**parameters),
            timing=Timing(**data["timing"]),
        )


@dataclass(frozen=True, slots=True)
class TrialFailure:
    """A trial that ended with an error.

    Attributes:
        trial: its identity.
        error: exception type and first line, without paths, process ids or addresses.
        traceback: the whole story, for a file beside the record.
        timing: when and where.
        cause: what kind of end it was.
    """

    trial: str
    error: str
    traceback: str
    timing: Timing
    cause: Cause = Cause.OWN

    def to_json(self) -> dict[str, Any]:
        """The failure as JSON values, the traceback left out."""
        data = asdict(self)
        del data["traceback"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any], traceback: str = "") -> TrialFailure:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown or of the wrong form.
        """
        return cls(
            trial=data["trial"],
            error=data["error"],
            traceback=traceback,
            timing=Timing(**data["timing"]),
            cause=Cause(data.get("cause", Cause.OWN)),
        )


@dataclass(frozen=True, slots=True)
class TrialPause:
    """A trial that waits after some epochs: whether it goes on is decided by those beside it.

    Attributes:
        trial: its identity.
        epochs: every epoch so far, in order.
    """

    trial: str
    epochs: tuple[EpochRow, ...]

    def to_json(self) -> dict[str, Any]:
        """The pause as JSON values; `from_json` reads it back equal."""
        return {"trial": self.trial, "epochs": [_values(row) for row in self.epochs]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrialPause:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: a field is missing, unknown or of the wrong form.
        """
        return cls(data["trial"], tuple(EpochRow(**row) for row in data["epochs"]))


@dataclass(frozen=True, slots=True)
class Weights:
    """The trained weights of a finished trial, at the epoch that `train.select` names.

    Attributes:
        trial: its identity.
        content: of their file; empty where there can be none.
        problem: why there can be none; else empty.
        twin: of the record's twin.
        name: of their file, `weights_name` of the model.
    """

    trial: str
    # Tune formats every result that it is given, whether anybody reads it or not.
    content: bytes = field(repr=False)
    problem: str = ""
    twin: Weights | None = field(default=None, repr=False)
    name: str = NETWORK_WEIGHTS


def _values(row: EpochRow | Scores | Predictions | ParameterCount | Timing) -> dict[str, Any]:
    """The fields as they are; `asdict` would copy each number of the probabilities."""
    return {field.name: getattr(row, field.name) for field in fields(row)}


def _split_result(data: dict[str, Any]) -> SplitResult:
    predictions = data["predictions"]
    return SplitResult(
        scores=Scores(**data["scores"]),
        predictions=Predictions(
            clips=tuple(predictions["clips"]),
            labels=tuple(predictions["labels"]),
            predicted=tuple(predictions["predicted"]),
            probabilities=tuple(map(tuple, predictions["probabilities"])),
        ),
    )
