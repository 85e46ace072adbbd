"""The sweep of the efficiency benchmark, and the training loop that a user would write for it.

24 trials: `cnn1d` with three initializations and `cnn_transformer` with three head counts, on the
folds 2 to 5 of ESC-10 (of the synthetic sounds without ESC10_DIR).
"""

from __future__ import annotations

import os
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from features.cache import cache_root, features_of
from models.build import build_model
from orchestrator.experiment import load_dataset, make_experiment
from orchestrator.folds import Split
from orchestrator.provenance import usable_cores
from orchestrator.sweep import load_sweep
from orchestrator.trials import Configuration, Trial

SPEC = """\
name: efficiency
data: {data}
features: {{kind: waveform, sample_rate: 16000, seconds: 5.0, windows: {{seconds: 1.0, hop: 0.5}}}}
folds: {{test: 1, validate: [2, 3, 4, 5]}}
model:
  grid:
    - {{name: cnn1d, init: {{grid: [random, xavier, kaiming]}}}}
    - {{name: cnn_transformer, heads: {{grid: [1, 2, 4]}}}}
train: {{epochs: {epochs}, batch_size: 16, optimizer: {{name: sgd, lr: 1e-3, weight_decay: 0.001}}}}
"""


@dataclass(frozen=True)
class Work:
    """What has to be trained.

    Attributes:
        trials: in plan order.
        splits: by validation fold.
        labels: class index of each clip.
        classes: how many.
        features: file of an array, float32 `[clips, windows, samples]`.
    """

    trials: tuple[Trial, ...]
    splits: dict[int, Split]
    labels: NDArray[np.int64]
    classes: int
    features: Path

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """The distinct ones."""
        return tuple(dict.fromkeys(trial.configuration for trial in self.trials))


def prepare(folder: Path, epochs: int, few: bool) -> Work:
    """Write specification, features and plan into a folder; the features come from the cache."""
    root = os.environ.get("ESC10_DIR")
    data = f"{{dataset: esc10, root: {root}}}" if root else "{dataset: synthetic}"
    text = SPEC.format(data=data, epochs=epochs)
    if few:
        text = text.replace("[2, 3, 4, 5]", "[2]")
    (folder / "spec.yaml").write_text(text, encoding="utf-8")
    sweep = load_sweep(folder / "spec.yaml", ())
    experiment = make_experiment(sweep, load_dataset(sweep))
    cache = cache_root()
    cache.mkdir(parents=True, exist_ok=True)
    (spec,) = experiment.features
    found = features_of(experiment.dataset, spec, cache=cache, workers=usable_cores())
    np.save(folder / "features.npy", found.array)
    work = Work(
        trials=experiment.plan.trials,
        splits={split.fold: split for split in experiment.splits},
        labels=np.array([clip.label for clip in experiment.dataset.clips], dtype=np.int64),
        classes=len(experiment.dataset.classes),
        features=folder / "features.npy",
    )
    (folder / "work.pickle").write_bytes(pickle.dumps(work))
    return work


def load(folder: Path) -> Work:
    """What `prepare` wrote."""
    work = pickle.loads((folder / "work.pickle").read_bytes())
    assert isinstance(work, Work)
    return work


def mark(folder: Path, what: str) -> None:
    """Note the time at which a trial `begins` or `ends`; any process may."""
    with (folder / "marks.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"{what} {time.time()}\n")


def train_plainly(
    work: Work, features: NDArray[np.float32], configuration: Configuration, fold: int
) -> list[float]:
    """Train as most scripts do, with DataLoaders; the validation accuracy after each epoch."""
    split, train = work.splits[fold], configuration.train
    torch.manual_seed(0)
    model = build_model(configuration.model, configuration.inputs, work.classes)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=train.optimizer.lr,
        momentum=0.9,
        nesterov=True,
        weight_decay=train.optimizer.weight_decay,
    )
    loss_function = nn.CrossEntropyLoss()

    def loader(rows: tuple[int, ...], shuffle: bool) -> DataLoader[tuple[torch.Tensor, ...]]:
        index = np.array(rows)
        clips = torch.from_numpy(features[index]), torch.from_numpy(work.labels[index])
        return DataLoader(TensorDataset(*clips), batch_size=16, shuffle=shuffle)

    training, validation = loader(split.train, True), loader(split.val, False)
    accuracies = []
    for _ in range(train.epochs):
        model.train()
        for x, y in training:
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            optimizer.step()
        model.eval()
        hits = 0
        with torch.no_grad():
            for x, y in validation:
                hits += int((model(x).argmax(dim=1) == y).sum())
        accuracies.append(hits / len(split.val))
    return accuracies
