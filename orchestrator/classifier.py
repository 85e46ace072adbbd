"""Classifier: trained models at work on audio files of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.arrays import FeatureArray
from features.audio import BadClip
from features.recording import Recording, Window
from features.spec import FeatureSpec
from features.workers import one_thread
from models.factory import FactoryError, source_hash
from models.spec import FactorySpec
from orchestrator.atomic import reason
from orchestrator.batches import GPU_EVALUATION_BATCH
from orchestrator.ensembles import load_ensemble
from orchestrator.errors import FoldgridError
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
        predicted: the class of the highest probability; of one estimator of scikit-learn alone
            and one window, what it predicts.
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
        models: networks in evaluation mode, from a batch of `inputs` to logits `[b, k]`; or
            fitted estimators of scikit-learn.
    """

    def __init__(self, trained: TrainedModel) -> None:
        """Load the weights.

        Raises:
            FoldgridError: they cannot be read, or a user's own model is not what it was.
        """
        self.trained = trained
        self.classes = trained.classes
        _refuse_other_source(trained)
        self._ensemble = load_ensemble(trained)
        self.models = self._ensemble.models

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
            predicted, probabilities = self._answers(features())
        if faults:
            raise FoldgridError(*faults)
        return list(self._rows(heard, predicted, probabilities))

    def inputs(self, path: str | Path, hop: float | None = None) -> NDArray[Any]:
        """What the models see of a file's windows: ONNX's input.

        For networks float32 `[windows, *shape]`, for estimators float64 `[windows, d]`.

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
        return self._ensemble.inputs(stored)

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

    def _answers(
        self, features: Iterator[FeatureArray]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Predicted class indices `[n]` and the mean of the models' probabilities `[n, k]`."""
        predicted = [np.empty(0, np.int64)]
        probabilities = [np.empty((0, len(self.classes)))]
        while part := list(islice(features, _AT_ONCE)):
            labels, chances = self._ensemble.answers(np.stack(part))
            predicted.append(labels)
            probabilities.append(chances)
        return np.concatenate(predicted), np.concatenate(probabilities)

    def _rows(
        self,
        heard: Iterable[_Heard],
        predicted: NDArray[np.int64],
        probabilities: NDArray[np.float64],
    ) -> Iterator[Prediction]:
        rate, first = self._spec.sample_rate, 0
        for one in heard:
            part = slice(first, first + len(one.windows))
            first = part.stop
            labels, own = predicted[part], probabilities[part]
            end = one.samples / rate
            if len(own) == 1:
                yield self._row(one.name, 0.0, end, labels[0], own[0])
                continue
            mean = own.mean(axis=0)
            yield self._row(one.name, 0.0, end, mean.argmax(), mean)
            for window, label, row in zip(one.windows, labels, own, strict=True):
                yield self._row(one.name, window.start / rate, window.stop / rate, label, row)

    def _row(
        self,
        name: str,
        start: float,
        end: float,
        label: np.integer[Any],
        probabilities: NDArray[np.float64],
    ) -> Prediction:
        by_class = dict(zip(self.classes, probabilities.tolist(), strict=True))
        return Prediction(name, start, end, self.classes[int(label)], by_class)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A file whose windows have been looked at: its path, its samples, and the windows."""

    name: str
    samples: int
    windows: list[Window]


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
