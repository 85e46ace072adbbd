"""The array type of extracted features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FeatureArray = NDArray[np.float32 | np.uint8]
"""Features of every clip, `[n, ...]`: float32 as the model sees them, or, for images, uint8
`[n, 1, h, w]`, where 0..255 stands for 0..1 and the one channel for three equal ones."""
