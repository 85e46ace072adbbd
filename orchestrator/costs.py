"""Costs: how long trials take, guessed before anything has run and then measured.

The guess counts multiply-adds and updates. Its rates are CPU seconds of one thread (an x86
server, PyTorch 2.11, SGD), measured in batches of 8, 16 and 32 over the shapes 9 x 16000, 80 x 157,
16 x 63 and 3 x 128 x 128; it is right within a third there. Only ratios count: on another machine
all trials are faster or slower, which the first measured epochs correct. On a GPU the ratios differ
too, until each kind has been measured. Attention heads share out one width: 1, 2, 4 or 16 cost the
same within 5 %, so that the guess leaves them out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from models.spec import (
    WIDTH,
    Cnn1dSpec,
    Cnn2dSpec,
    CnnTransformerSpec,
    GoogLeNetSpec,
    InputSpec,
    ModelSpec,
    ResNet34Spec,
)
from orchestrator.hyperparameters import TrainSpec
from orchestrator.records import TrialRecord
from orchestrator.trials import Configuration, Trial, canonical

EQUAL = 0.1
"""Costs that differ by no more than this share count as equal: as much may be chance."""

_EVALUATED = 0.3
"""Of the cost of training on a clip, what it costs to evaluate it."""

_UPDATE = 1e-3
"""Seconds of an update, without its parameters."""

_PARAMETER = 2.7e-9
"""Seconds of an update for each parameter."""

_NOT_DRAWN = {"init", "weights", "dropout"}
"""Fields of a model that do not change how long it takes."""


class Clips(Protocol):
    """The clips of one split, of which only the numbers count: see `folds.Split`."""

    @property
    def train(self) -> Sized:
        """What the model learns from."""

    @property
    def val(self) -> Sized:
        """What is evaluated after each epoch."""

    @property
    def test(self) -> Sized:
        """What is evaluated at the end, or after each epoch too."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Seconds of training on one clip, and millions of parameters to update."""

    clip: float
    parameters: float


def prior_seconds(configuration: Configuration, split: Clips) -> float:
    """A guess at the seconds of one epoch, on one core; the time of its shapes alone.

    A user's own model and torchvision's are taken for one of middling size, whatever their
    parameters, and so is an estimator, which is fitted in place of an epoch.
    """
    train = configuration.train
    work = _work(configuration.model, configuration.inputs)
    if train is None:
        return (len(split.train) + _EVALUATED * len(split.val)) * work.clip
    evaluated = len(split.val) + (len(split.test) if train.test_every_epoch else 0)
    updates = -(-len(split.train) // train.batch_size)
    clips = len(split.train) + _EVALUATED * evaluated
    return clips * work.clip + updates * (_UPDATE + _PARAMETER * 1e6 * work.parameters)


def _work(model: ModelSpec, inputs: InputSpec) -> _Work:
    shape = inputs.shape
    if isinstance(model, Cnn1dSpec):
        return _Work(_block_seconds(inputs)[0], 0.6)
    if isinstance(model, CnnTransformerSpec):
        blocks, steps = _block_seconds(inputs)
        encoder = model.layers * (steps + 1) * (5 * WIDTH**2 + 2 * (steps + 1) * WIDTH)
        return _Work(blocks + 9e-11 * encoder, 0.6 + 1.3 * model.layers)
    if isinstance(model, Cnn2dSpec):
        parameters = model.branches * 0.3 * (model.channels / 16) ** 2
        return _Work(3e-4 + 6e-11 * _pictures(model, inputs), parameters)
    # The published multiply-adds of the two, at 224 x 224.
    if isinstance(model, GoogLeNetSpec):
        return _Work(5.9e-11 * 1.6e9 * shape[-1] * shape[-2] / 224**2, 10.3)
    if isinstance(model, ResNet34Spec):
        return _Work(4.1e-11 * 3.6e9 * shape[-1] * shape[-2] / 224**2, 22.7)
    return _Work(1e-3 + 3e-8 * math.prod(shape), 1.0)


def _block_seconds(inputs: InputSpec) -> tuple[float, int]:
    """Of the four blocks of `cnn1d` for one clip, and the time steps that they leave."""
    channels, steps = inputs.shape
    samples = inputs.layout == "samples"
    kernel, stride, pool = (80, 16, 4) if samples else (9, 1, 2)
    steps = (steps - kernel) // stride + 1
    total = steps * kernel * channels * 128
    for narrow, wide in pairwise((128, 128, 256, 512)):
        steps //= pool
        total += steps * 3 * narrow * wide
    # The long first convolution of waveforms is done in patches, which is quicker.
    return 2e-4 + (2.9e-11 if samples else 4.3e-11) * total, steps // pool


def _pictures(model: Cnn2dSpec, inputs: InputSpec) -> float:
    """Multiply-adds of `cnn2d` for one clip."""
    seen = 1 if inputs.layout == "bands" else inputs.shape[0]
    area = inputs.shape[-1] * inputs.shape[-2] / 4
    wide = model.channels
    total = area * 25 * seen * wide + area * 18 * wide**2
    for block in range(1, 4):
        wide = model.channels * 2**block
        total += area / 4**block * 9 * (wide // 2 + wide) * wide
    return model.branches * total


def kind(configuration: Configuration) -> str:
    """Text that is equal for configurations whose epochs take equally long on equal splits."""
    model, inputs, train = configuration.model, configuration.inputs, configuration.train
    shapes = [model.model_dump(mode="json", exclude=_NOT_DRAWN), [inputs.layout, inputs.shape]]
    if train is None:
        return canonical(shapes)
    return canonical(
        [
            *shapes,
            [train.batch_size, train.optimizer.name, train.precision, train.test_every_epoch],
            [train.deterministic, train.compile, _augmentations(train)],
        ]
    )


def _augmentations(train: TrainSpec) -> list[str]:
    return [] if train.augment is None else [k for k, v in train.augment if v is not None]


@dataclass(frozen=True, slots=True)
class Note:
    """A measurement that can be taken back.

    Attributes:
        trial: what was measured.
        expected: seconds, weighted.
        met: seconds, weighted alike.
    """

    trial: Trial
    expected: float
    met: float


@dataclass(slots=True)
class _Sum:
    """Beside each other what was expected and what was met, and how often."""

    expected: float = 0.0
    met: float = 0.0
    count: int = 0

    def add(self, expected: float, met: float, count: int = 1) -> None:
        self.expected += expected
        self.met += met
        self.count += count


class Costs:
    """How long trials take: what was expected, corrected by what is measured.

    Each kind of trial has a correction of its own, measured over expected seconds. A kind that
    has not been measured yet has that of its model, or else of all that has been measured.
    """

    def __init__(
        self, splits: Mapping[tuple[int | None, int | None], Clips], before: Costs | None = None
    ):
        """Begin without measurements.

        Args:
            splits: by `(test fold, validation fold)`.
            before: what is expected; None for the guess.
        """
        self._splits = splits
        self._before = before
        self._expected: dict[tuple[str, int | None, int | None], float] = {}
        self._scopes: dict[str, tuple[str, str, str]] = {}
        self._seconds: dict[str, _Sum] = {}
        self._epochs: dict[str, _Sum] = {}

    @property
    def measured(self) -> bool:
        """Whether seconds come from measurements, here or before."""
        here = self._seconds.get("")
        earlier = self._before is not None and self._before.measured
        return earlier or (here is not None and here.count > 0)

    def note(self, trial: Trial, epochs: int, seconds: float, weight: float = 1.0) -> Note:
        """Take in the time of some epochs of a trial."""
        note = Note(trial, weight * epochs * self._base(trial), weight * seconds)
        for scope in self._scope(trial):
            self._seconds.setdefault(scope, _Sum()).add(note.expected, note.met)
        return note

    def take_back(self, note: Note) -> None:
        """Forget what was taken in."""
        for scope in self._scope(note.trial):
            self._seconds[scope].add(-note.expected, -note.met, -1)

    def note_end(self, trial: Trial, epochs: int) -> None:
        """Take in after how many epochs a trial has ended."""
        if _stops_early(trial):
            for scope in self._scope(trial):
                planned = trial.configuration.epochs
                self._epochs.setdefault(scope, _Sum()).add(planned, epochs)

    def note_record(self, trial: Trial, record: TrialRecord) -> None:
        """Take in a finished trial."""
        self.note(trial, len(record.epochs), record.timing.train_seconds)
        self.note_end(trial, len(record.epochs))

    def epoch_seconds(self, trial: Trial, least: int = 1) -> float:
        """Of one epoch; a measurement counts if there are so many of its kind."""
        return self._base(trial) * _ratio(self._seconds, self._scope(trial), least)

    def epochs_left(self, trial: Trial, done: int = 0) -> float:
        """The epochs that a trial will still run, by how early trials like it have stopped."""
        planned = trial.configuration.epochs
        most = max(planned - done, 0)
        if not _stops_early(trial):
            return most
        return min(max(self._share(trial) * planned - done, 1), most)

    def seconds_left(self, trial: Trial, done: int = 0, least: int = 1) -> float:
        """Of all the epochs that are left after the first ones are done."""
        return self.epochs_left(trial, done) * self.epoch_seconds(trial, least)

    def _share(self, trial: Trial) -> float:
        """Of the planned epochs, what trials like this one ran."""
        earlier = 1.0 if self._before is None else self._before._share(trial)
        scope = self._scope(trial)
        return _ratio(self._epochs, scope, 1) if scope[-1] in self._epochs else earlier

    def _base(self, trial: Trial) -> float:
        if self._before is not None:
            return self._before.epoch_seconds(trial)
        place = (trial.configuration.id, trial.test_fold, trial.fold)
        if place not in self._expected:
            split = self._splits[trial.test_fold, trial.fold]
            self._expected[place] = prior_seconds(trial.configuration, split)
        return self._expected[place]

    def _scope(self, trial: Trial) -> tuple[str, str, str]:
        """From the narrowest on, the sets of trials that a trial belongs to."""
        configuration = trial.configuration
        if configuration.id not in self._scopes:
            model = configuration.model.name
            self._scopes[configuration.id] = (kind(configuration), f"model {model}", "")
        return self._scopes[configuration.id]


def _stops_early(trial: Trial) -> bool:
    train = trial.configuration.train
    return train is not None and train.early_stopping is not None


def _ratio(sums: Mapping[str, _Sum], scopes: Sequence[str], least: int) -> float:
    """Of the narrowest set with so many measurements, what was met over what was expected."""
    for scope in scopes:
        found = sums.get(scope)
        if found is not None and found.count >= least and found.met > 0 and found.expected > 0:
            return found.met / found.expected
    return 1.0


def longest_first(
    trials: Sequence[Trial], costs: Costs, done: Mapping[str, int] | None = None
) -> list[Trial]:
    """Trials in the order in which they are to start: equally long ones stay as they are.

    So that no worker is left alone at the end with a long trial (Graham 1969, Bounds on
    multiprocessing timing anomalies). A single measurement of a kind may be chance: it counts
    for its model only, together with those of other kinds.

    Args:
        trials: in plan order.
        costs: their seconds.
        done: epochs that an unfinished trial need not repeat, by its identity.
    """
    given = done or {}
    seconds = [costs.seconds_left(trial, given.get(trial.id, 0), least=2) for trial in trials]
    levels = _levels(set(seconds))
    order = sorted(range(len(trials)), key=lambda i: levels[seconds[i]])
    return [trials[i] for i in order]


def _levels(values: set[float]) -> dict[float, int]:
    """0 for the largest value and all that count as equal to it, 1 for the next, and so on."""
    levels: dict[float, int] = {}
    level, top = -1, math.inf
    for value in sorted(values, reverse=True):
        if value < top * (1 - EQUAL):
            level, top = level + 1, value
        levels[value] = level
    return levels
