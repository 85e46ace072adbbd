"""Nothing that trains knows of the other splits: neither features, nor scaling, nor weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.augment import Augmenter
from features.cache import features_of
from features.clips import Clip, Dataset
from features.spec import FeatureSpec, LogMelSpec, MelImageSpec, MfccSpec, WaveformSpec
from models.build import build_model
from models.spec import Cnn1dSpec, Cnn2dSpec, CnnTransformerSpec, InputSpec, ModelSpec
from orchestrator.device import trial_settings
from orchestrator.hyperparameters import TrainSpec
from orchestrator.seeding import derive_seeds, seed_everything
from orchestrator.training import Fit, SplitData, TrainingData

FEATURES = LogMelSpec(n_mels=16, sample_rate=8000, seconds=0.5, hop_length=128)
CLIPS, CLASSES = 24, 3
TRAIN, VAL, TEST = np.arange(12), np.arange(12, 18), np.arange(18, 24)

MODELS: tuple[ModelSpec, ...] = (
    Cnn1dSpec(),
    CnnTransformerSpec(layers=1),
    Cnn2dSpec(channels=4),
)
TRAINING: tuple[dict[str, Any], ...] = (
    {},
    {"class_weights": "balanced", "label_smoothing": 0.1},
    {"schedule": {"name": "one_cycle"}, "optimizer": {"name": "adamw", "lr": 0.01}},
    {"augment": {"mixup": 0.4, "time_shift": 0.5, "spec_augment": True}},
)


def trained(
    model_spec: ModelSpec,
    train: dict[str, Any],
    rest: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> tuple[list[tuple[float, float]], list[bytes]]:
    """Training loss and accuracy of each epoch, and every weight at the end.

    Args:
        model_spec: what trains.
        train: the changes of its training parameters.
        rest: features of the validation and test clips.
        labels: theirs.
    """
    rng = np.random.default_rng(3)
    own = rng.standard_normal((len(TRAIN), *FEATURES.shape), dtype=np.float32)
    features = np.concatenate([own, rest])
    every = np.concatenate([np.arange(len(TRAIN)) % CLASSES, labels])
    spec = TrainSpec(**{"epochs": 2, "batch_size": 4, **train})
    seeds = derive_seeds(0, 1, 2)
    seed_everything(seeds.initialization)
    model = build_model(model_spec, InputSpec("bands", FEATURES.shape), CLASSES)
    data = TrainingData(features, every, SplitData(TRAIN, VAL, TEST), CLASSES)
    augmenter = Augmenter(spec.augment, FEATURES) if spec.augment else None
    fit = Fit(model, data, spec, seeds, torch.device("cpu"), augmenter)
    with trial_settings(torch.device("cpu"), deterministic=False):
        rows = [fit.run_epoch() for _ in range(spec.epochs)]
        fit.result()
    weights = [weight.detach().numpy().tobytes() for weight in fit.model.state_dict().values()]
    return [(row.train_loss, row.train_accuracy) for row in rows], weights


@settings(max_examples=12, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    train=st.sampled_from(TRAINING),
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
    mean=st.sampled_from([-10.0, 0.0, 3.0]),
)
def test_other_validation_and_test_clips_change_nothing_in_training(
    model: ModelSpec, train: dict[str, Any], seed: int, level: float, mean: float
) -> None:
    rng = np.random.default_rng(seed)
    shape = (len(VAL) + len(TEST), *FEATURES.shape)
    before = np.zeros(shape, np.float32)
    after = (level * rng.standard_normal(shape) + mean).astype(np.float32)
    labels = np.arange(shape[0]) % CLASSES
    others = rng.permutation(labels)
    assert trained(model, train, before, labels) == trained(model, train, after, others)


KINDS: dict[str, FeatureSpec] = {
    "waveform": WaveformSpec(sample_rate=8000, seconds=0.5),
    "log_mel": LogMelSpec(sample_rate=8000, seconds=0.5, n_mels=16),
    "mfcc": MfccSpec(sample_rate=8000, seconds=0.5, n_mels=16, n_mfcc=12),
    "mel_image": MelImageSpec(sample_rate=8000, seconds=0.5, n_mels=16, size=32),
}


@pytest.mark.parametrize("normalize", [None, "peak", "rms"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_features_of_a_clip_know_of_no_other_clip(
    kind: str, normalize: str | None, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    clips = []
    for i, level in enumerate((0.01, 0.1, 0.9)):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, level * rng.uniform(-1, 1, 4000), 8000)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        clips.append(Clip(path.name, i % 2, i, path.name, content))
    spec = KINDS[kind].model_copy(update={"normalize": normalize})
    together = Dataset("folder", tmp_path, ("a", "b"), tuple(clips))
    cache = tmp_path / "cache"
    array = features_of(together, spec, cache=cache, workers=2).array
    for row, clip in zip(array, clips, strict=True):
        alone = Dataset("folder", tmp_path, ("a", "b"), (clip,))
        assert np.array_equal(features_of(alone, spec, cache=cache, workers=1).array[0], row)
