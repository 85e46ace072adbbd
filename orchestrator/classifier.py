"""Classifier: trained models at work on audio files of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from features.arrays import FeatureArray
from features.audio import BadClip
from features.recording import Recording, Window
from features.spec import FeatureSpec
from features.workers import one_thread
from models.build import ModelError, build_trained
from models.factory import FactoryError, source_hash
from models.spec import FactorySpec
from models.torchvision_classifier import TorchvisionError
from models.weights import WeightsError
from orchestrator.atomic import reason
from orchestrator.batches import GPU_EVALUATION_BATCH, ClipSet
from orchestrator.device import choose_device, trial_settings
from orchestrator.errors import FoldgridError
from orchestrator.evaluation import answers, probabilities_of
from orchestrator.trained_model import TrainedModel

_AT_ONCE = GPU_EVALUATION_BATCH
"""Windows whose features are in memory; as many batches of a CPU as fit in, so that the clips of
a split, in their order, are answered in the batches that they were validated in."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for a file or for a window of it.

    Attributes:
        clip: the file's path as it was given.
        start: where the part begins that is answered for, seconds.
        end: where it ends.
        predicted: the class of the highest probability.
        probabilities: by class, in label order; they sum to 1.
    """

    clip: str
    start: float
    end: float
    predicted: str
    probabilities: dict[str, float]


class Classifier:
    """Class probabilities for new files: the mean over the models of an ensemble, or of one.

    Attributes:
        classes: names in label order.
        trained: what was loaded.
        models: from a batch of `inputs` to logits `[b, k]`, in evaluation mode.
    """

    def __init__(self, trained: TrainedModel) -> None:
        """Load the weights.

        Raises:
            FoldgridError: they cannot be read, or a user's own model is not what it was.
        """
        self.trained = trained
        self.classes = trained.classes
        self._device = choose_device(1 if torch.cuda.is_available() else 0)
        _refuse_other_source(trained)
        self.models = [_loaded(trained, path).to(self._device) for path in trained.weights]

    def predict(self, paths: Iterable[str | Path], hop: float | None = None) -> list[Prediction]:
        """The answers for files, in order.

        A file of at most `features.seconds` is one row. A longer one is a row for the whole of
        it, the mean over its windows, and then a row for each window.

        Args:
            paths: of audio files.
            hop: seconds between the starts of two windows; None for `features.seconds`.

        Raises:
            FoldgridError: files that cannot be used, each named, or no such hop.
        """
        names = [str(path) for path in paths]
        step = self._hop(hop)
        heard: list[_Heard] = []
        faults: list[str] = []

        def features() -> Iterator[FeatureArray]:
            for name in names:
                try:
                    recording = self._recording(name)
                    windows = recording.windows(step)
                    heard.append(_Heard(name, len(recording.waveform), windows))
                    yield from map(recording.features, windows)
                except BadClip as problem:
                    faults.append(f"{name}: bad clip: {problem}")
                except OSError as error:
                    faults.append(f"{name}: cannot read: {reason(error)}")

        with one_thread(self._spec):
            probabilities = self._probabilities(features())
        if faults:
            raise FoldgridError(*faults)
        return list(self._rows(heard, probabilities))

    def inputs(self, path: str | Path, hop: float | None = None) -> NDArray[np.float32]:
        """What the models see of a file's windows, `float32 [windows, *shape]`: ONNX's input.

        Raises:
            FoldgridError: it cannot be used, or no such hop.
        """
        step = self._hop(hop)
        try:
            recording = self._recording(str(path))
            with one_thread(self._spec):
                stored = np.stack([recording.features(w) for w in recording.windows(step)])
        except BadClip as problem:
            raise FoldgridError(f"{path}: bad clip: {problem}") from None
        except OSError as error:
            raise FoldgridError(f"{path}: cannot read: {reason(error)}") from None
        seen, _ = _clip_set(stored, torch.device("cpu")).batch(torch.arange(len(stored)))
        return np.ascontiguousarray(seen.numpy())

    @property
    def _spec(self) -> FeatureSpec:
        return self.trained.configuration.features

    def _recording(self, name: str) -> Recording:
        return Recording.read(Path(name), self._spec)

    def _hop(self, hop: float | None) -> float:
        """The hop that is asked for, so that no part of a file is left out."""
        longest = self._spec.seconds
        if hop is None:
            return longest
        if not 0 < hop <= longest:
            allowed = f"seconds above 0, at most features.seconds, {longest:g}"
            raise FoldgridError(f"--hop: found {hop:g}; allowed {allowed}")
        return hop

    def _probabilities(self, features: Iterator[FeatureArray]) -> NDArray[np.float64]:
        """The mean of the models' probabilities `[n, k]`."""
        train = self.trained.train
        found = [np.empty((0, len(self.classes)))]
        while part := list(islice(features, _AT_ONCE)):
            clips = _clip_set(np.stack(part), self._device)
            with trial_settings(self._device, deterministic=train.deterministic):
                of_each = [
                    probabilities_of(answers(model, clips, len(self.classes), train.precision))
                    for model in self.models
                ]
            found.append(np.mean(of_each, axis=0))
        return np.concatenate(found)

    def _rows(
        self, heard: Iterable[_Heard], probabilities: NDArray[np.float64]
    ) -> Iterator[Prediction]:
        rate, first = self._spec.sample_rate, 0
        for one in heard:
            own = probabilities[first : first + len(one.windows)]
            first += len(own)
            yield self._row(one.name, 0.0, one.samples / rate, own.mean(axis=0))
            if len(own) > 1:
                for window, row in zip(one.windows, own, strict=True):
                    yield self._row(one.name, window.start / rate, window.stop / rate, row)

    def _row(
        self, name: str, start: float, end: float, probabilities: NDArray[np.float64]
    ) -> Prediction:
        predicted = self.classes[int(probabilities.argmax())]
        by_class = dict(zip(self.classes, probabilities.tolist(), strict=True))
        return Prediction(name, start, end, predicted, by_class)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A file whose windows have been looked at: its path, its samples, and the windows."""

    name: str
    samples: int
    windows: list[Window]


def _clip_set(stored: FeatureArray, device: torch.device) -> ClipSet:
    rows = np.arange(len(stored))
    return ClipSet(stored, np.zeros(len(stored), np.int64), rows, device)


def _loaded(trained: TrainedModel, weights: Path) -> nn.Module:
    try:
        return build_trained(
            trained.network,
            trained.configuration.inputs,
            len(trained.classes),
            weights,
            import_path=trained.import_path,
        )
    except (WeightsError, FactoryError, ModelError, TorchvisionError) as error:
        raise FoldgridError(f"{weights}: {error}") from error


def _refuse_other_source(trained: TrainedModel) -> None:
    """A user's own model is code, and has to be that which was trained."""
    model = trained.configuration.model
    if not isinstance(model, FactorySpec):
        return
    try:
        same = source_hash(model.name, trained.import_path) == trained.configuration.source
    except FactoryError as error:
        raise FoldgridError(f"{model.name}: {error}") from error
    if not same:
        raise FoldgridError(f"{model.name}: its file is not the one that was trained")
