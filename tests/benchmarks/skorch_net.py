"""What skorch's worker processes need of the efficiency benchmark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset, Subset

from models.build import build_model
from orchestrator.trials import Configuration

sys.path.insert(0, str(Path(__file__).parent))

from sweep_work import mark


def make_model(configuration: Configuration, classes: int) -> nn.Module:
    """The model of a configuration."""
    return build_model(configuration.model, configuration.inputs, classes)


class LastClips:
    """Splits off the last clips, which are those of the validation fold."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, dataset: Dataset[Any], y: object = None, **_: object) -> tuple[Any, Any]:
        first = len(dataset) - self.count  # type: ignore[arg-type]
        return Subset(dataset, range(first)), Subset(dataset, range(first, first + self.count))


class Marks(Callback):
    """Notes when each fit begins and ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_begin(self, net: object, **_: object) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        mark(self.folder, "begins")

    def on_train_end(self, net: object, **_: object) -> None:
        mark(self.folder, "ends")
