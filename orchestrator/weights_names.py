"""Names of the files of trained weights: what kind of model they are of decides."""

from __future__ import annotations

from models.spec import EstimatorSpec, ModelSpec

NETWORK_WEIGHTS = "weights.safetensors"
"""Of a network: its tensors."""

ESTIMATOR_WEIGHTS = "weights.skops"
"""Of an estimator of scikit-learn: the fitted estimator, with its scaler if it has one."""

WEIGHTS_NAMES = (NETWORK_WEIGHTS, ESTIMATOR_WEIGHTS)


def weights_name(model: ModelSpec) -> str:
    """Name of the file of weights of a model."""
    return ESTIMATOR_WEIGHTS if isinstance(model, EstimatorSpec) else NETWORK_WEIGHTS
