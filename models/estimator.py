"""`sklearn:<Estimator>`: scikit-learn's classifiers, found by name, checked and made.

scikit-learn is imported inside functions only: it takes seconds, and few trials need it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from models.library_error import LibraryError
from models.spec import EstimatorSpec

__all__ = ["EstimatorError", "check_estimator", "estimator_class", "make_estimator"]

_HOMES = (
    *("neighbors", "svm", "linear_model", "ensemble", "tree", "naive_bayes", "neural_network"),
    *("discriminant_analysis", "gaussian_process", "semi_supervised", "dummy", "calibration"),
    *("multiclass", "multioutput", "model_selection"),
)
"""Modules of scikit-learn that have classifiers, the common ones first: one is imported after the
other until the name is found, where `sklearn.utils.all_estimators` imports everything."""

_OURS = ("n_jobs", "decision_function_shape")
"""Arguments that foldgrid gives itself: a trial has one thread, and a score for each class."""

_INVALID = re.compile(r"The '(?P<key>\w+)' parameter of \w+ must be (?P<allowed>.*)\. Got .*")
"""How scikit-learn refuses a value."""

_LARGEST_SEED = 2**32


class EstimatorError(LibraryError):
    """scikit-learn has no such classifier, or refuses its parameters."""


def estimator_class(name: str) -> type[Any]:
    """A classifier of scikit-learn by the name of its class.

    Raises:
        EstimatorError: there is none of that name.
    """
    known: list[str] = []
    for found in _classifiers():
        if found.__name__ == name:
            return found
        known.append(found.__name__)
    lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    examples = [lower[one] for one in near] or ["SVC", "KNeighborsClassifier"]
    hint = f"sklearn:{lower[near[0]]}" if near else ""
    allowed = f"scikit-learn's classifiers {', '.join(examples)}, ..."
    raise EstimatorError(("name",), f"sklearn:{name}", allowed, hint)


def check_estimator(spec: EstimatorSpec) -> None:
    """Compare a specification with what the estimator takes; nothing is fitted.

    Raises:
        EstimatorError: no such classifier, one that is made from others, a parameter that it
            does not take or that foldgrid gives, or a value that it refuses.
    """
    kind = estimator_class(spec.estimator)
    parameters = inspect.signature(kind).parameters
    for parameter in parameters.values():
        if parameter.default is parameter.empty:
            found = f"{spec.name}, which is made from other estimators ({parameter.name})"
            raise EstimatorError(("name",), found, "classifiers that need no others")
    _check_names(spec.params, [name for name in parameters if name not in _OURS])
    try:
        kind(**spec.params)._validate_params()
    except (TypeError, ValueError) as error:
        raise _refusal(spec.params, error) from error


def make_estimator(spec: EstimatorSpec, seed: int) -> Any:
    """The classifier, not fitted yet, after a StandardScaler where `spec.standardize` says so.

    The scaler is part of what is fitted, so that it sees the training split alone.

    Args:
        spec: checked.
        seed: becomes `random_state` where the estimator has one and the parameters do not set it.

    Raises:
        EstimatorError: scikit-learn has no such classifier.
    """
    kind = estimator_class(spec.estimator)
    drawn = "random_state" in inspect.signature(kind).parameters
    given = {"random_state": seed % _LARGEST_SEED} if drawn else {}
    estimator = kind(**given | spec.params)
    if not spec.standardize:
        return estimator
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), estimator)


def _classifiers() -> Iterator[type[Any]]:
    """Every classifier among the public names of scikit-learn's modules."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    for home in _HOMES:
        module = importlib.import_module(f"sklearn.{home}")
        for name, found in vars(module).items():
            if name.startswith("_") or not isinstance(found, type):
                continue
            if issubclass(found, ClassifierMixin) and issubclass(found, BaseEstimator):
                yield found


def _check_names(params: Mapping[str, Any], taken: list[str]) -> None:
    for key in params:
        if key not in taken:
            ours = f"{key}, which foldgrid gives itself"
            found = ours if key in _OURS else f"unknown key {key!r}"
            near = difflib.get_close_matches(key, taken, n=1)
            allowed = ", ".join(taken) or "none"
            raise EstimatorError(("params", key), found, allowed, "".join(near))


def _refusal(params: Mapping[str, Any], error: Exception) -> EstimatorError:
    """What scikit-learn says of a value, at the value."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    match = _INVALID.fullmatch(line)
    if match is None or match["key"] not in params:
        return EstimatorError(("params",), f"{dict(params)} ({line})", "what the estimator takes")
    return EstimatorError(("params", match["key"]), str(params[match["key"]]), match["allowed"])
