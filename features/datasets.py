"""The datasets that a specification can name, one loader each.

Loading finds and hashes the clips; it decodes nothing and imports no audio library.
"""

from __future__ import annotations

from features import synthetic
from features.clips import Dataset
from features.esc10 import load_esc10
from features.esc50 import load_esc50
from features.folder import load_folder
from features.manifest import load_manifest
from features.urbansound8k import load_urbansound8k

__all__ = [
    "load_esc10",
    "load_esc50",
    "load_folder",
    "load_manifest",
    "load_synthetic",
    "load_urbansound8k",
]


def load_synthetic() -> Dataset:
    """Ten procedurally made sound classes in five folds; needs no files.

    The sounds are made when their features are extracted, see `features.synthetic.render`.
    """
    return Dataset("synthetic", None, synthetic.CLASSES, synthetic.clips())
