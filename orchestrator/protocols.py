"""Protocols: what folds are for, and what a score says under each."""

from __future__ import annotations

from typing import Literal

Protocol = Literal["held_out", "rotate", "cross_validation", "nested"]

OF_ALL_FOLDS: dict[Protocol, tuple[str, str]] = {
    "rotate": ("each fold tests", "the next fold"),
    "cross_validation": ("no fold tests", "each fold"),
    "nested": ("each fold tests", "all others in turn"),
}
"""Those that use all folds alike: what tests, and what validates."""


def score_meaning(protocol: Protocol, tested: bool) -> str:
    """What the scores of a run say, in one sentence without a full stop.

    Args:
        protocol: of the run.
        tested: whether there is a test fold (`held_out` may have none).
    """
    if protocol == "rotate":
        return (
            "validation: mean over the folds, each chosen on; test: mean over the folds, each"
            " tested once by a model that was chosen on another one"
        )
    if protocol == "nested":
        return (
            "validation: mean over the inner folds, each chosen on; test: each fold once, by the"
            " configuration that the other folds have chosen, trained anew on all of them"
        )
    if protocol == "cross_validation" or not tested:
        return "validation: mean over the folds, each chosen on; no test, so no unbiased estimate"
    return (
        "validation: mean over the folds, each chosen on; test: mean over the same models on the"
        " fold that is held out"
    )
