"""Audio: clips, datasets and the arrays made from them; knows nothing of experiments.

Shapes: `n` clips, `c` channels (windows of a waveform, or bands of a spectrogram), `t` time
steps (samples within a window, or frames). A clip's features are `float32 [c, t]`, the features
of a dataset `float32 [n, c, t]`, row `i` belonging to `Dataset.clips[i]`. An image is
`[3, h, w]` to the model and stored as `uint8 [1, h, w]`, see `features.arrays`; clip statistics
are `[d]`.

This face holds what imports light. The loaders are in `features.datasets`, the arrays come from
`features.cache.features_of`.
"""

from features.clips import Clip, Dataset, DatasetError
from features.spec import (
    FEATURE_KINDS,
    ClipStatisticsSpec,
    FeatureSpec,
    LogMelSpec,
    MelImageSpec,
    MfccSpec,
    WaveformSpec,
    Windows,
)

__all__ = [
    "FEATURE_KINDS",
    "Clip",
    "ClipStatisticsSpec",
    "Dataset",
    "DatasetError",
    "FeatureSpec",
    "LogMelSpec",
    "MelImageSpec",
    "MfccSpec",
    "WaveformSpec",
    "Windows",
]
