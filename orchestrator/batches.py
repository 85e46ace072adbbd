"""ClipSet: the clips of one split, gathered in batches from the shared features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from features.arrays import FeatureArray

EVALUATION_BATCH = 16
"""Clips in an evaluation batch on a CPU, the same for every trial: sums depend on it in the last
bit. So few, because what a larger batch makes lies outside the caches, in new pages each time."""

GPU_EVALUATION_BATCH = 64
"""The same on a GPU, which a smaller batch does not fill; a larger one takes memory of others."""


class ClipSet:
    """Features and labels of one split, ready to be read in batches.

    On a CPU each batch is copied from the shared array when it is asked for. On a GPU the
    split's rows are moved there once. The shared array may be read-only and is never copied as
    a whole. Images stay bytes of one channel until a batch is asked for.

    Attributes:
        rows: the split's rows in the feature array, int64 `[n]`.
        labels: their class indices, int64 `[n]` on the device.
    """

    def __init__(
        self,
        features: FeatureArray,
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        """Take the rows of a split.

        Args:
            features: float32 `[clips, c, t]` or uint8 `[clips, 1, h, w]`, of every clip of the
                data set.
            labels: class indices `[clips]`.
            rows: which of them belong to the split.
            device: where batches are wanted.

        Raises:
            IndexError: a row that the features do not have.
        """
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(features)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {len(features)} clips")
        self.rows = rows
        self.labels = torch.from_numpy(labels[rows].astype(np.int64)).to(device)
        self._features = features
        self._dtype = torch.uint8 if features.dtype == np.uint8 else torch.float32
        self._resident = None if device.type == "cpu" else self._moved(device)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and labels `[b]` at positions 0..n - 1 within the split.

        Features are float32, `[b, c, t]` or, of images, `[b, 3, h, w]` in 0..1.
        """
        labels = self.labels[positions.to(self.labels.device)]
        if self._resident is None:
            return _as_seen(self._gathered(positions)), labels
        return _as_seen(self._resident[positions.to(self._resident.device)]), labels

    def batches(self, batch_size: int) -> int:
        """How many batches `shuffled` gives."""
        return len(self.shuffled(batch_size, seed=0))

    def shuffled(self, batch_size: int, seed: int) -> list[torch.Tensor]:
        """Positions in random order; a last batch of one clip joins the one before.

        Batch norm has no variance to work with in a batch of one.
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        # Moved once an epoch: a GPU would have to wait for each batch's positions.
        batches = _cut(order.to(self.labels.device), batch_size)
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def ordered(self) -> list[torch.Tensor]:
        """Positions in order, in batches for evaluation."""
        device = self.labels.device
        size = EVALUATION_BATCH if device.type == "cpu" else GPU_EVALUATION_BATCH
        return _cut(torch.arange(len(self), device=device), size)

    def _gathered(self, positions: torch.Tensor) -> torch.Tensor:
        # torch's own memory is aligned the same way each time, which vector code can depend on.
        # The mode only keeps numpy from buffering the result: the rows are checked above.
        rows = self.rows[positions.numpy()]
        batch = torch.empty(len(rows), *self._features.shape[1:], dtype=self._dtype)
        self._features.take(rows, axis=0, out=batch.numpy(), mode="clip")
        return batch

    def _moved(self, device: torch.device) -> torch.Tensor:
        resident = torch.empty(
            len(self), *self._features.shape[1:], dtype=self._dtype, device=device
        )
        for positions in _cut(torch.arange(len(self)), EVALUATION_BATCH):
            resident[int(positions[0]) : int(positions[-1]) + 1] = self._gathered(positions)
        return resident


def _as_seen(stored: torch.Tensor) -> torch.Tensor:
    """Features as a model sees them: bytes become 0..1, and one channel three equal ones."""
    if stored.dtype != torch.uint8:
        return stored
    return (stored.float() / 255).expand(-1, 3, -1, -1)


def _cut(positions: torch.Tensor, size: int) -> list[torch.Tensor]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]
