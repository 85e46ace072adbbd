"""The array type of extracted features, and how an array leaves memory."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

FeatureArray = NDArray[np.float32 | np.uint8]
"""Features of every clip, `[n, ...]`: float32 as the model sees them, or, for images, uint8
`[n, 1, h, w]`, where 0..255 stands for 0..1 and the one channel for three equal ones."""


def let_go(array: FeatureArray) -> None:
    """Take an array that is mapped from a file out of this process's memory.

    It can be read as before, from the file again. Other arrays stay where they are.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
