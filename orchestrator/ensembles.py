"""Ensembles: trained models, loaded, that answer for features together."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from features.arrays import FeatureArray
from models.build import ModelError, build_trained
from models.estimator import EstimatorError
from models.estimator_answers import answers_of, clip_vectors
from models.factory import FactoryError
from models.spec import EstimatorSpec
from models.torchvision_classifier import TorchvisionError
from models.weights import WeightsError
from orchestrator.batches import ClipSet
from orchestrator.device import choose_device, trial_settings
from orchestrator.error_line import error_line
from orchestrator.errors import FoldgridError
from orchestrator.evaluation import answers, probabilities_of
from orchestrator.trained_model import TrainedModel

_log = logging.getLogger(__name__)


class Ensemble(ABC):
    """Models of one configuration, the mean of whose probabilities counts.

    Attributes:
        models: networks in evaluation mode, from a batch of `inputs` to logits `[b, k]`; or
            fitted estimators of scikit-learn.
    """

    models: list[Any]

    @abstractmethod
    def inputs(self, stored: FeatureArray) -> NDArray[Any]:
        """What the models see of clips whose features are stored so, `[n, *shape]`."""

    @abstractmethod
    def answers(self, stored: FeatureArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Predicted class indices `[n]` and probabilities `[n, k]`.

        Raises:
            FoldgridError: the models refuse the features.
        """


class NetworkEnsemble(Ensemble):
    """Networks, on a GPU where there is one."""

    def __init__(self, trained: TrainedModel) -> None:
        """Load the weights.

        Raises:
            FoldgridError: they cannot be read, or are not those of such a network.
        """
        self._train = trained.train
        self._classes = len(trained.classes)
        self._device = choose_device(1 if torch.cuda.is_available() else 0)
        self.models = [_network(trained, path).to(self._device) for path in trained.weights]

    def inputs(self, stored: FeatureArray) -> NDArray[Any]:
        """Float32 `[n, *shape]`, as in training without augmentation."""
        seen, _ = _clip_set(stored, torch.device("cpu")).batch(torch.arange(len(stored)))
        return np.ascontiguousarray(seen.numpy())

    def answers(self, stored: FeatureArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The highest mean probability decides."""
        clips = _clip_set(stored, self._device)
        with trial_settings(self._device, deterministic=self._train.deterministic):
            of_each = [
                probabilities_of(answers(model, clips, self._classes, self._train.precision))
                for model in self.models
            ]
        probabilities = np.mean(of_each, axis=0)
        return probabilities.argmax(axis=1), probabilities


class EstimatorEnsemble(Ensemble):
    """Estimators of scikit-learn, on a CPU.

    One alone predicts as it does in a trial, which is not always its highest probability: an SVC
    counts votes. Of several the mean of the probabilities decides.
    """

    def __init__(self, trained: TrainedModel, spec: EstimatorSpec) -> None:
        """Load the fitted estimators.

        Another version of scikit-learn than they were fitted by is a warning.

        Raises:
            FoldgridError: they cannot be read, or are others.
        """
        # Not at module level: it imports all of scikit-learn, which networks do without.
        from models.estimator_file import fitted_by, read_estimator

        self._name = spec.name
        self._classes = len(trained.classes)
        numbers = math.prod(trained.configuration.features.stored_shape)
        self.models = []
        for path in trained.weights:
            try:
                self.models.append(read_estimator(path, spec, numbers, self._classes))
                _warn_of_version(path, fitted_by(path))
            except (WeightsError, EstimatorError) as error:
                raise FoldgridError(f"{path}: {error}") from error

    def inputs(self, stored: FeatureArray) -> NDArray[Any]:
        """A vector a clip, float64 `[n, d]`."""
        return clip_vectors(stored)

    def answers(self, stored: FeatureArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """One estimator decides itself, of several the highest mean probability.

        Raises:
            FoldgridError: an estimator has no answer for a clip.
        """
        vectors = clip_vectors(stored)
        try:
            of_each = [answers_of(model, vectors, self._classes) for model in self.models]
        # There may be no answer for a clip, and another version may lack anything.
        except Exception as error:
            raise FoldgridError(f"{self._name}: {error_line(error)}") from error
        if len(of_each) == 1:
            return of_each[0].predicted, of_each[0].probabilities
        probabilities = np.mean([one.probabilities for one in of_each], axis=0)
        return probabilities.argmax(axis=1), probabilities


def load_ensemble(trained: TrainedModel) -> Ensemble:
    """Load what was trained.

    Raises:
        FoldgridError: it cannot be read, or is of another model.
    """
    spec = trained.configuration.model
    if isinstance(spec, EstimatorSpec):
        return EstimatorEnsemble(trained, spec)
    return NetworkEnsemble(trained)


def _clip_set(stored: FeatureArray, device: torch.device) -> ClipSet:
    rows = np.arange(len(stored))
    return ClipSet(stored, np.zeros(len(stored), np.int64), rows, device)


def _network(trained: TrainedModel, weights: Path) -> nn.Module:
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


def _warn_of_version(path: Path, fitted: str) -> None:
    here = version("scikit-learn")
    if fitted != here:
        _log.warning(
            "%s: fitted by scikit-learn %s, and this is %s: its answers may be others",
            path,
            fitted,
            here,
        )
