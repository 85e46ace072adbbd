"""A fitted estimator of scikit-learn in a file of skops, from which nothing can be run.

Imported by what reads or writes such a file only: skops imports all of scikit-learn.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline
from skops.io import dumps, get_untrusted_types, loads

from models.estimator import make_estimator
from models.library_error import error_line
from models.spec import EstimatorSpec
from models.weights import WeightsError

__all__ = ["estimator_bytes", "fitted_by", "read_estimator"]

_METRICS = (
    *("BrayCurtis", "Canberra", "Chebyshev", "Dice", "Euclidean", "Hamming", "Haversine"),
    *("Jaccard", "Mahalanobis", "Manhattan", "Minkowski", "RogersTanimoto", "RussellRao"),
    *("SEuclidean", "SokalMichener", "SokalSneath"),
)
"""Distances of scikit-learn's neighbours, but for the one that calls a function of the user's."""

_TRUSTED = frozenset(
    {
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        *(f"sklearn.metrics._dist_metrics.{name}Distance64" for name in _METRICS),
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
    }
)
"""Types beside those that skops itself trusts, of which scikit-learn's classifiers are made.

By name and not by package: `numpy.testing` has a function that runs a text as a program. That no
code can be run is all: skops does not trust trees, since wrong numbers in one can crash a process.
"""

_VERSION = "foldgrid.json"
"""Entry of the file, beside those of skops: what the estimator was fitted by."""

_SHOWN = 3
"""Types that a message gives of those that are not trusted."""


def estimator_bytes(estimator: Any) -> bytes:
    """A fitted estimator, with its scaler if it has one, as the content of a `.skops` file.

    The bytes are not the same each time; what is read back from them answers the same.

    Raises:
        WeightsError: skops cannot write it, or it would not be read back.
    """
    try:
        # A forest shrinks to a sixth; more would take longer than to fit it.
        content = dumps(estimator, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
        foreign = _foreign_types(content)
    # What skops has no form for raises what it likes.
    except Exception as error:
        raise WeightsError(error_line(error)) from error
    if foreign:
        raise WeightsError(f"it holds {_first(foreign)}, which is not read back")
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as file:
        file.writestr(_VERSION, json.dumps({"scikit-learn": sklearn.__version__}))
    return stream.getvalue()


def fitted_by(path: Path) -> str:
    """The version of scikit-learn that an estimator in a file was fitted by.

    Raises:
        WeightsError: the file cannot be read, or `estimator_bytes` did not make it.
    """
    return _version(path)


def read_estimator(path: Path, spec: EstimatorSpec, features: int, classes: int) -> Any:
    """A fitted estimator from a file; no code in the file is run.

    Of another version of scikit-learn it is loaded if it can be; `fitted_by` tells.

    Args:
        path: as `estimator_bytes` wrote it.
        spec: which estimator, with a scaler or without.
        features: numbers in a clip's vector.
        classes: `k`.

    Raises:
        WeightsError: it cannot be read, holds what no estimator is made of, or is another one.
    """
    content = _content(path)
    version = _version(io.BytesIO(content))
    try:
        foreign = _foreign_types(content)
        if foreign:
            raise WeightsError(_untrusted(foreign, version))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            found = loads(content, trusted=sorted(_TRUSTED))
    except WeightsError:
        raise
    # The readers raise what they like on a damaged file, and on one of another version.
    except Exception as error:
        raise WeightsError(_unreadable(version, error)) from error
    _refuse_other(found, spec, features, classes)
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"it cannot be read: {error.strerror or error}") from error


def _version(source: Path | io.BytesIO) -> str:
    try:
        with zipfile.ZipFile(source) as file:
            return str(json.loads(file.read(_VERSION))["scikit-learn"])
    except Exception as error:
        raise WeightsError(f"it is damaged ({error_line(error)})") from error


def _foreign_types(content: bytes) -> list[str]:
    """Types in a file that are not trusted; nothing of it is made or imported."""
    return sorted(set(get_untrusted_types(data=content)) - _TRUSTED)


def _untrusted(foreign: list[str], version: str) -> str:
    by = "" if version == sklearn.__version__ else f" (it was fitted by {version})"
    made = f"of which scikit-learn {sklearn.__version__} makes no estimator"
    return f"it holds {_first(foreign)}, {made}{by}"


def _unreadable(version: str, error: Exception) -> str:
    if version == sklearn.__version__:
        return f"it is damaged ({error_line(error)})"
    by = f"it was fitted by scikit-learn {version}"
    return f"{by}, and {sklearn.__version__} cannot load it ({error_line(error)})"


def _refuse_other(found: Any, spec: EstimatorSpec, features: int, classes: int) -> None:
    """Raise WeightsError for what is not the estimator that is expected."""
    expected, types = _steps(make_estimator(spec, 0)), _steps(found)
    if types != expected:
        raise WeightsError(f"it holds {' and '.join(types)}, not {' and '.join(expected)}")
    taken = getattr(found, "n_features_in_", features)
    if taken != features:
        raise WeightsError(f"it takes {taken} numbers a clip, not {features}")
    if not np.array_equal(getattr(found, "classes_", ()), np.arange(classes)):
        raise WeightsError(f"it does not tell {classes} classes apart")


def _steps(estimator: Any) -> list[str]:
    parts = (
        [part for _, part in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    )
    return [type(part).__name__ for part in parts]


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    rest = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
